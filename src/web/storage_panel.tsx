// The storage panel: what the page keeps in the browser, how large it is, and how to be rid of it.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { bytes, counted } from "../evaluation/format.ts";
import { Button } from "./components/basic.tsx";
import { ask, Dialog, Progress, toast, toastError } from "./components/feedback.tsx";
import type { Engine, StorageFacts } from "./protocol.ts";
import {
  activeRun,
  engine,
  engineError,
  refreshStorage,
  removeStoredRun,
  settings,
  storage,
  wireError,
} from "./store.ts";

export const storageOpen = signal(false);

/** Why something stays for now. */
const inRun = "a run uses them";

/** Asks the browser not to clear the storage by itself. True where it agreed. */
export async function keepStorage(): Promise<boolean> {
  try {
    return (await navigator.storage.persisted()) || (await navigator.storage.persist());
  } catch {
    return false;
  }
}

export function StoragePanel() {
  const open = storageOpen.value;
  useEffect(() => {
    if (open) void refreshStorage();
  }, [open]);
  const facts = storage.value;
  return (
    <Dialog title="Storage" open={open} onClose={() => (storageOpen.value = false)}>
      <p class="small quiet">
        Runs, pictures and weights lie in this browser's own storage. Clearing the site's data in the browser removes
        them too.
      </p>
      {facts ? (
        <Facts facts={facts} />
      ) : (
        <p class="quiet" role="status">
          {engineError.value ? `It cannot be listed: ${engineError.value.what}.` : "Looking at what is stored …"}
        </p>
      )}
    </Dialog>
  );
}

function Facts({ facts }: { facts: StorageFacts }) {
  const { runs, sets, weightsBytes, otherBytes, quota, usage, persisted } = facts;
  return (
    <>
      {quota !== null && usage !== null && (
        <Progress
          label={`${bytes(usage)} used`}
          done={usage}
          total={quota}
          text={`${bytes(Math.max(0, quota - usage))} free`}
        />
      )}
      <div class="row small">
        {persisted ? (
          <span>The browser keeps this storage until you remove it.</span>
        ) : (
          <>
            <span class="grow">The browser may clear this storage when the disk is full.</span>
            <Button small onClick={() => void keep()}>
              Keep it
            </Button>
          </>
        )}
      </div>
      <div class="table-scroll">
        <table class="table">
          <thead>
            <tr>
              <th scope="col">What</th>
              <th scope="col" class="number">
                Size
              </th>
              <th scope="col">
                <span class="visually-hidden">Remove</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {runs.map((run) => (
              <Row
                key={`run ${run.name}`}
                what={`Run “${run.name}”`}
                state={`${run.state} at update ${run.step}`}
                size={run.bytes}
                inUse={activeRun.value?.name === run.name && activeRun.value.active ? "it is under way" : null}
                remove={() => removeStoredRun(run.name)}
              />
            ))}
            {sets.map((set) => (
              <Row
                key={`set ${set.name}`}
                what={`Pictures “${set.name}”`}
                state={counted(set.pictures, "picture")}
                size={set.bytes}
                inUse={activeRun.value?.active && settings.value.set?.path === `pictures/${set.name}` ? inRun : null}
                remove={(to) => to.removeSet(set.name)}
              />
            ))}
            {weightsBytes > 0 && (
              <Row
                what="Model weights"
                state="fetched again when needed"
                size={weightsBytes}
                inUse={activeRun.value?.active ? inRun : null}
                remove={(to) => to.removeWeights()}
              />
            )}
            <tr>
              <td>Caches and settings</td>
              <td class="number">{bytes(otherBytes)}</td>
              <td />
            </tr>
          </tbody>
        </table>
      </div>
    </>
  );
}

interface RowProps {
  what: string;
  state: string;
  size: number;
  /** Why it cannot be removed now. */
  inUse: string | null;
  remove: (engine: Engine) => Promise<void>;
}

function Row({ what, state, size, inUse, remove }: RowProps) {
  const sure = async () => {
    const text = `${bytes(size)} are given back. This cannot be undone.`;
    if (
      !(await ask({
        title: `Remove ${what.charAt(0).toLowerCase()}${what.slice(1)}?`,
        text,
        yes: "Remove",
        danger: true,
      }))
    )
      return;
    try {
      await remove(await engine());
    } catch (error) {
      toastError(wireError(error));
    }
    await refreshStorage();
  };
  return (
    <tr>
      <td>
        {what}
        <div class="quiet">{state}</div>
      </td>
      <td class="number">{bytes(size)}</td>
      <td>
        <Button small kind="quiet" disabledReason={inUse} label={`Remove ${what}`} onClick={() => void sure()}>
          Remove
        </Button>
      </td>
    </tr>
  );
}

async function keep(): Promise<void> {
  const kept = await keepStorage();
  await refreshStorage();
  if (!kept)
    toast({
      kind: "warn",
      title: "The browser did not agree",
      text: "It decides by how often a page is used; adding the page to the bookmarks helps.",
    });
}
