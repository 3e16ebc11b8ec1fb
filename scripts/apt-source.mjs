// Finds out where this Debian or Ubuntu gets its packages from, so that the software GPU comes from the mirror that the
// machine is allowed to reach. It asks apt, and reads apt's own files where apt has nothing to say. And it makes apt work
// in a folder of ours, without root and without a trace in the system.

import { spawnSync } from "node:child_process";
import fs from "node:fs";
import path from "node:path";

/** Fields of `/etc/os-release` that matter here: `{ids, codename, name}`; `ids` holds ID and ID_LIKE. */
export function osRelease(file = "/etc/os-release") {
  const fields = {};
  try {
    for (const line of fs.readFileSync(file, "utf8").split("\n")) {
      const match = /^([A-Z_]+)=(.*)$/.exec(line.trim());
      if (match) fields[match[1]] = match[2].replace(/^["']|["']$/g, "");
    }
  } catch {}
  return {
    ids: [fields.ID ?? "", ...(fields.ID_LIKE ?? "").split(/\s+/)].filter(Boolean),
    // Derivatives name the release of their parent apart from their own.
    codename: fields.UBUNTU_CODENAME || fields.DEBIAN_CODENAME || fields.VERSION_CODENAME || "",
    name: fields.PRETTY_NAME || fields.NAME || "this system",
  };
}

/** `"ubuntu"`, `"debian"` or null for a system that does not use their packages. */
export function packageFamily(release = osRelease()) {
  if (release.ids.includes("ubuntu")) return "ubuntu";
  return release.ids.includes("debian") ? "debian" : null;
}

/**
 * Reads one-line (`deb [options] uri suite components`) and deb822 (`Types:/URIs:/Suites:`) source files.
 * Returns entries `{uri, suite, components, signedBy}`; deb-src and disabled entries are left out.
 */
export function parseSources(text, { deb822 }) {
  const entries = [];
  if (!deb822) {
    for (const line of text.split("\n")) {
      const match = /^\s*deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s*([^#]*)/.exec(line);
      if (!match) continue;
      const signedBy = /signed-by=(\S+)/.exec(match[1] ?? "")?.[1] ?? "";
      entries.push({ uri: match[2], suite: match[3], components: match[4].trim().split(/\s+/), signedBy });
    }
    return entries;
  }
  for (const stanza of text.split(/\n\s*\n/)) {
    const fields = {};
    let key = "";
    for (const line of stanza.split("\n")) {
      if (line.startsWith("#")) continue;
      const match = /^([A-Za-z-]+):\s*(.*)$/.exec(line);
      if (match) {
        key = match[1].toLowerCase();
        fields[key] = match[2].trim();
      } else if (key && /^\s/.test(line)) {
        fields[key] += `\n${line.trim()}`;
      }
    }
    if (!/\bdeb\b(?!-src)/.test(fields.types ?? "") || /^(no|false)$/i.test(fields.enabled ?? "")) continue;
    // A key may be written out inside the file; only a path can be named in a source line of ours.
    const signedBy = /^\/\S+$/.test(fields["signed-by"] ?? "") ? fields["signed-by"] : "";
    for (const uri of (fields.uris ?? "").split(/\s+/).filter(Boolean)) {
      for (const suite of (fields.suites ?? "").split(/\s+/).filter(Boolean)) {
        entries.push({ uri, suite, components: (fields.components ?? "").split(/\s+/).filter(Boolean), signedBy });
      }
    }
  }
  return entries;
}

function entriesFromApt() {
  const format = "$(REPO_URI)\t$(RELEASE)\t$(COMPONENT)\t$(SIGNED_BY)";
  const result = spawnSync("apt-get", ["indextargets", "--format", format, "Created-By: Packages"], {
    encoding: "utf8",
  });
  if (result.status !== 0) return [];
  return result.stdout
    .split("\n")
    .map((line) => line.split("\t"))
    .filter((fields) => fields.length === 4 && fields[0])
    .map(([uri, suite, component, signedBy]) => ({
      uri,
      suite,
      components: [component],
      signedBy: signedBy.startsWith("/") ? signedBy : "",
    }));
}

function entriesFromFiles(etc = "/etc/apt") {
  const files = [path.join(etc, "sources.list")];
  try {
    const parts = fs.readdirSync(path.join(etc, "sources.list.d")).sort();
    files.push(...parts.map((name) => path.join(etc, "sources.list.d", name)));
  } catch {}
  return files
    .filter((file) => /\.(list|sources)$/.test(file) && fs.existsSync(file))
    .flatMap((file) => parseSources(fs.readFileSync(file, "utf8"), { deb822: file.endsWith(".sources") }));
}

const KEYRINGS = {
  debian: ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"],
  ubuntu: ["/usr/share/keyrings/ubuntu-archive-keyring.gpg", "/usr/share/keyrings/ubuntu-archive-keyring.pgp"],
};

/**
 * The entry of the distribution itself among `entries`: the one of the running release with the component main, else
 * one whose address ends like the family's archives. Null where there is none.
 */
export function chooseArchive(entries, family, codename) {
  const main = entries.filter((entry) => entry.components.includes("main"));
  const ending = family === "ubuntu" ? /\/ubuntu(-ports)?\/?$/ : /\/debian\/?$/;
  const ofRelease = (entry) =>
    entry.suite === codename || /^(stable|oldstable|testing|unstable|sid)$/.test(entry.suite);
  return (
    main.find((entry) => ofRelease(entry) && ending.test(entry.uri)) ??
    main.find((entry) => entry.suite === codename) ??
    main.find((entry) => ending.test(entry.uri)) ??
    null
  );
}

/** `{uri, signedBy}` of this machine's archive, or null; `signedBy` is "" where apt's trusted keys must do. */
export function findArchive(family, codename) {
  const archive =
    chooseArchive(entriesFromApt(), family, codename) ?? chooseArchive(entriesFromFiles(), family, codename);
  if (!archive) return null;
  const keyring = [archive.signedBy, ...KEYRINGS[family]].find((file) => file && fs.existsSync(file));
  return { uri: archive.uri, signedBy: keyring ?? "" };
}

/** Folder of libraries by processor, as Node calls it; the systems that packages are unpacked for. */
export const TRIPLETS = { x64: "x86_64-linux-gnu", arm64: "aarch64-linux-gnu" };

/** Debian's name of a processor that Node calls `arch`. */
export function architectureOf(arch) {
  return arch === "x64" ? "amd64" : arch;
}

/**
 * Makes the folder `apt` and returns apt-get's options that keep its lists, archives and state there. It believes that
 * nothing is installed, so that the answer does not depend on the machine.
 */
export function privateAptOptions(apt, architecture) {
  for (const sub of ["lists/partial", "archives/partial"]) fs.mkdirSync(path.join(apt, sub), { recursive: true });
  fs.writeFileSync(path.join(apt, "status"), "");
  return [
    `Dir::State::Lists=${apt}/lists`,
    `Dir::State::status=${apt}/status`,
    `Dir::Cache=${apt}`,
    "Dir::Etc::preferences=-",
    "Dir::Etc::preferencesparts=-",
    "APT::Default-Release=",
    `APT::Architecture=${architecture}`,
    `APT::Architectures=${architecture}`,
    "APT::Sandbox::User=root",
    "APT::Update::Post-Invoke=",
    "APT::Update::Post-Invoke-Success=",
    // Without it a source that cannot be reached is a mere warning.
    "APT::Update::Error-Mode=any",
    "Acquire::Languages=none",
    "Acquire::Retries=3",
    // Keeps what was downloaded: container images tell apt to delete its archives at once.
    "APT::Keep-Downloaded-Packages=true",
    "Binary::apt-get::APT::Keep-Downloaded-Packages=true",
    "Debug::NoLocking=1",
  ].flatMap((option) => ["-o", option]);
}
