// What can go wrong between here and a hub, told apart: no network, trouble on the other side, no token or a rejected one, a
// licence that waits to be accepted, nothing there. The hub names its reasons in headers (`X-Error-Code`).

import { LongtailError } from "../base/errors.ts";
import { type HubId, hubIdText } from "../models/hub_id.ts";

/** What an error's text needs to know. */
export interface HubContext {
  id: HubId;
  /** Address of the hub, without a slash at its end. */
  endpoint: string;
  /** Whether requests carry a token. */
  token: boolean;
}

/** Answers after which the same request may succeed. */
export const isPassing = (status: number): boolean => status === 408 || status === 429 || status >= 500;

/** The coded form of an answer that is no success. */
export function refusedBy(response: Response, context: HubContext): LongtailError {
  const { id, endpoint, token } = context;
  const { status } = response;
  const code = response.headers.get("x-error-code") ?? "";
  const said = response.headers.get("x-error-message") ?? "";
  const where = hubIdText(id);
  const page = `${endpoint}/${id.repository}`;
  const answer = `the hub answered ${status}${code ? ` ${code}` : ""}${said ? `: ${said}` : ""}`;
  const missingToken = (what: string) =>
    new LongtailError("E-ENV-102", {
      what,
      where,
      why: answer,
      fix: `check the name at ${page}; for a private or gated model set HF_TOKEN to a token of ${endpoint}/settings/tokens`,
    });
  const gated = () =>
    new LongtailError("E-ENV-104", {
      what: "the model's licence must be accepted first",
      where,
      why: answer,
      fix: `open ${page}, accept the conditions with the account of your token, and start again`,
    });
  const rejected = () =>
    new LongtailError("E-ENV-103", {
      what: "the hub rejects the token",
      where,
      why: answer,
      fix: `make a token that may read this model at ${endpoint}/settings/tokens and set HF_TOKEN`,
    });
  const none = () =>
    new LongtailError("E-FILE-130", {
      what: "the hub has no such model",
      where,
      why: answer,
      fix: `check owner and name at ${page}; a folder on this machine is written with ./ before its name`,
    });

  if (code === "GatedRepo") return token ? gated() : missingToken("the model is gated, and there is no token");
  if (status === 401) {
    if (!token) return missingToken("the model is private or does not exist, and there is no token");
    return code === "RepoNotFound" ? none() : rejected();
  }
  if (status === 403 && code !== "DisabledRepo") return token ? rejected() : missingToken("the model may not be read");
  if (code === "RevisionNotFound") {
    return new LongtailError("E-FILE-131", {
      what: `the model has no revision ${JSON.stringify(id.revision)}`,
      where,
      why: answer,
      fix: `look at the branches and tags at ${page}/tree/main`,
    });
  }
  if (code === "EntryNotFound") {
    return new LongtailError("E-FILE-132", {
      what: "the repository does not have this file",
      where,
      why: answer,
      fix: `look at the files at ${page}/tree/${id.revision}`,
    });
  }
  if (status === 404 || status === 403) return none();
  return new LongtailError("E-ENV-101", {
    what: "the hub does not deliver",
    where,
    why: answer,
    fix: isPassing(status) ? "start again later; what has arrived is kept" : "start again; if it stays, report it",
  });
}

/** An answer of the store that the hub sends downloads to. It knows no models, so its reasons are passing ones. */
export function storeFails(response: Response, { id }: HubContext): LongtailError {
  return new LongtailError("E-ENV-101", {
    what: "the hub's store does not deliver",
    where: `${hubIdText(id)} at ${new URL(response.url).host}`,
    why: `it answered ${response.status}`,
    fix: "start again later; what has arrived is kept",
  });
}

/** No answer at all. */
export function unreachable(cause: unknown, context: HubContext): LongtailError {
  const inner = (cause as { cause?: unknown } | null)?.cause;
  const text = [cause, inner].map((error) => (error instanceof Error ? error.message : "")).filter(Boolean);
  return new LongtailError("E-ENV-100", {
    what: "the hub cannot be reached",
    where: `${hubIdText(context.id)} at ${context.endpoint}`,
    why: text.join(": ") || String(cause),
    fix: "check the network or the proxy; a model that is on this machine already runs with HF_HUB_OFFLINE=1",
    cause,
  });
}

/** Offline, and something is not here. */
export function notCached(id: HubId, why: string): LongtailError {
  return new LongtailError("E-ENV-105", {
    what: "the model is not on this machine, and no request may be sent",
    where: hubIdText(id),
    why,
    fix: "fetch it once without HF_HUB_OFFLINE and with the same cache folder (HF_HOME)",
  });
}

/** The bytes are not those that the hub announced. */
export function wrongHash(where: string, expected: string, found: string): LongtailError {
  return new LongtailError("E-FILE-133", {
    what: "the file that arrived is not the one that was announced",
    where,
    why: `its hash is ${found.slice(0, 16)}…, announced was ${expected.slice(0, 16)}…, and a second download gave no other`,
    fix: "something between here and the hub changes the data (a proxy, a failing disk): try another network or disk",
  });
}
