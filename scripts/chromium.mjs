// Finds a Chromium for the tests of the page, and gives a Debian machine without one its own: Debian's signed package and
// the libraries it needs, unpacked into the cache folder. No root, and nothing outside that folder changes.
//
// Chromium's release fits the system's libc because it comes from the system's own package source; so the unpacked
// libraries need only LD_LIBRARY_PATH, which a start script sets for Chromium alone.
//
// LONGTAIL_CHROMIUM names the program to take; `own` passes over the system's, `off` leaves the tests out.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { architectureOf, osRelease, packageFamily, privateAptOptions, TRIPLETS } from "./apt-source.mjs";
import { cacheFolder, lastLines, progress, readJson, runLogged, withLock, writeJson } from "./tools.mjs";

// Part of the folder's name: a change of the recipe makes a new folder.
const RECIPE = 1;
// The first release line whose WebGPU the page was tried on; older ones lack features that the kernels use.
const OLDEST = 130;
const BY_HAND = "install Chromium or Chrome, or set LONGTAIL_CHROMIUM to one";
const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge"];
const MAC = ["Google Chrome", "Chromium", "Microsoft Edge"];
const WINDOWS = ["Google/Chrome/Application/chrome.exe", "Microsoft/Edge/Application/msedge.exe"];

// What Debian's package depends on and a browser without a window never loads: the system's base (libc above all, which
// must be the system's own), GPU drivers of OpenGL, icons. Half of the download.
const LEFT_OUT =
  /^(libc6|libc-bin|libllvm|libz3|libgl1-mesa-dri|libgallium|mesa-|libperl|perl|libgtk-3-common|libpam|libsystemd-shared|libapt|libsemanage|libsepol|libcryptsetup|libargon2|libdevmapper|libdb5|libgcrypt20-|libdconf|libgprofng|libssl3)/;
const TAKEN = /^(chromium|chromium-common|fonts-dejavu-core|fonts-dejavu-mono|fontconfig-config|zlib1g|lib.*)$/;

const home = () => path.join(cacheFolder(), "chromium");
const ownFolder = () => path.join(home(), `${process.arch}-r${RECIPE}`);
const ownProgram = () => path.join(ownFolder(), "chromium");

const isNamed = (env) => Boolean(env.LONGTAIL_CHROMIUM) && env.LONGTAIL_CHROMIUM !== "own";

/** Programs to try, in order; only those that exist. */
function candidates(env) {
  if (isNamed(env)) return [env.LONGTAIL_CHROMIUM].filter((file) => fs.existsSync(file));
  const places = [];
  if (!env.LONGTAIL_CHROMIUM) {
    const folders = (env.PATH ?? "").split(path.delimiter).filter(Boolean);
    places.push(...NAMES.flatMap((name) => folders.map((folder) => path.join(folder, name))));
    if (process.platform === "darwin")
      for (const root of ["/Applications", path.join(os.homedir(), "Applications")])
        places.push(...MAC.map((name) => path.join(root, `${name}.app`, "Contents", "MacOS", name)));
    if (process.platform === "win32")
      for (const root of [env.PROGRAMFILES, env["PROGRAMFILES(X86)"], env.LOCALAPPDATA].filter(Boolean))
        places.push(...WINDOWS.map((name) => path.join(root, name)));
  }
  places.push(ownProgram());
  return places.filter((file) => fs.existsSync(file));
}

/**
 * A Chromium that starts and is new enough: `{program, version}`, or `{program: null, why}`. Every candidate is started
 * once without a window; what it said is remembered until the file changes. Nothing is installed.
 */
export async function findChromium(env = process.env) {
  if (env.LONGTAIL_CHROMIUM === "off") return { program: null, why: "LONGTAIL_CHROMIUM is off" };
  let why = "no Chromium was found";
  for (const program of candidates(env)) {
    const found = await tryProgram(program);
    if (found.version >= OLDEST) return { program, version: found.version };
    why = found.version
      ? `${program} is version ${found.version}, and ${OLDEST} is the oldest that will do`
      : `${program} does not start`;
    if (found.why) why += `: ${found.why}`;
  }
  if (isNamed(env) && !fs.existsSync(env.LONGTAIL_CHROMIUM))
    why = `LONGTAIL_CHROMIUM: ${env.LONGTAIL_CHROMIUM} does not exist`;
  return { program: null, why };
}

/** `{version, why}` of a program; version 0 where it does not show a page. */
async function tryProgram(program) {
  const { mtimeMs, size } = fs.statSync(program);
  const key = `${program} ${mtimeMs} ${size}`;
  const file = path.join(home(), "tried.json");
  const known = readJson(file)?.[key];
  if (known) return known;
  fs.mkdirSync(home(), { recursive: true });
  const log = path.join(cacheFolder(), "logs", "chromium-start.log");
  fs.mkdirSync(path.dirname(log), { recursive: true });
  fs.writeFileSync(log, "");
  const profile = fs.mkdtempSync(path.join(os.tmpdir(), "longtail-chromium-"));
  const args = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", `--user-data-dir=${profile}`];
  const page = "data:text/html,<script>document.write(navigator.userAgent)</script>";
  try {
    const { output } = await runLogged(program, [...args, "--dump-dom", page], { log, timeout: 60_000 });
    const version = Number(/Chrome\/(\d+)/.exec(output)?.[1] ?? 0);
    if (!version) return { version, why: lastLines(log, 1) };
    const tried = Object.entries(readJson(file) ?? {}).slice(-8);
    writeJson(file, { ...Object.fromEntries(tried), [key]: { version } });
    return { version };
  } finally {
    fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

/**
 * Like findChromium, and unpacks Debian's Chromium where there is none. Never throws: the reason why there is none is in
 * `why`, one line for the tests that are left out.
 */
export async function ensureChromium({ say = progress, env = process.env } = {}) {
  try {
    const found = await findChromium(env);
    if (found.program || isNamed(env)) return found;
    const refused = whyNotUnpacked();
    if (refused) return { program: null, why: `${found.why}; ${refused}; ${BY_HAND}` };
    const waiting = () => say("longtail: another start is setting Chromium up; waiting for it");
    await withLock("chromium", async () => (await findChromium(env)).program ?? (await unpackChromium(say)), waiting);
    return await findChromium(env);
  } catch (error) {
    return { program: null, why: `Chromium could not be set up: ${error.message}; ${BY_HAND}` };
  }
}

/** Why Debian's package cannot be used here, or "". Ubuntu's own is an empty shell around a snap. */
function whyNotUnpacked() {
  const onPath = (tool) => (process.env.PATH ?? "").split(":").some((folder) => fs.existsSync(path.join(folder, tool)));
  const release = osRelease();
  const debian = process.platform === "linux" && TRIPLETS[process.arch] && packageFamily(release) === "debian";
  if (!debian || !onPath("apt-get") || !onPath("dpkg-deb")) {
    return `one can be set up on Debian alone, and this is ${process.platform === "linux" ? release.name : process.platform}`;
  }
  return "";
}

async function unpackChromium(say) {
  const log = path.join(cacheFolder(), "logs", "chromium.log");
  fs.mkdirSync(path.dirname(log), { recursive: true });
  fs.mkdirSync(home(), { recursive: true });
  fs.writeFileSync(log, "");
  for (const name of fs.readdirSync(home()).filter((entry) => entry.includes(".building-")))
    fs.rmSync(path.join(home(), name), { recursive: true, force: true });
  const building = fs.mkdtempSync(`${ownFolder()}.building-`);
  try {
    const started = performance.now();
    say("longtail: no Chromium found; downloading Debian's for the tests of the page (once)");
    const bytes = await download(building, log);
    const seconds = Math.round((performance.now() - started) / 1000);
    say(`longtail: downloaded ${Math.round(bytes / 1e6)} MB in ${seconds} s; unpacking Chromium`);
    await unpack(building, log);
    fs.rmSync(ownFolder(), { recursive: true, force: true });
    fs.renameSync(building, ownFolder());
  } finally {
    fs.rmSync(building, { recursive: true, force: true });
  }
}

/** Downloads into `building/apt/debs` and returns the bytes. */
async function download(building, log) {
  const apt = path.join(building, "apt");
  const options = privateAptOptions(apt, architectureOf(process.arch));
  const failed = (what) => new Error(`${what} (${lastLines(log, 1) || "apt gave no reason"})`);
  const update = await runLogged("apt-get", [...options, "update", "-q"], { log });
  if (update.code !== 0) throw failed("apt's package lists could not be read");
  const wanted = ["chromium", "fonts-dejavu-core"];
  const plan = await runLogged("apt-get", [...options, "install", "-s", "--no-install-recommends", ...wanted], { log });
  const names = [...plan.output.matchAll(/^Inst (\S+)/gm)].map(([, name]) => name);
  const chosen = names.filter((name) => TAKEN.test(name) && !LEFT_OUT.test(name));
  if (plan.code !== 0 || !chosen.includes("chromium")) throw failed("apt has no package chromium");
  const folder = path.join(apt, "debs");
  fs.mkdirSync(folder);
  const got = await runLogged("apt-get", [...options, "download", "-q", ...chosen], { log, cwd: folder });
  if (got.code !== 0) throw failed("the packages could not be downloaded");
  return fs.readdirSync(folder).reduce((sum, name) => sum + fs.statSync(path.join(folder, name)).size, 0);
}

async function unpack(building, log) {
  const root = path.join(building, "root");
  fs.mkdirSync(root);
  const folder = path.join(building, "apt", "debs");
  for (const name of fs.readdirSync(folder)) {
    const done = await runLogged("dpkg-deb", ["-x", path.join(folder, name), root], { log });
    if (done.code !== 0) throw new Error(`dpkg-deb cannot unpack ${name} (${lastLines(log, 1)})`);
    fs.rmSync(path.join(folder, name));
  }
  fs.rmSync(path.join(building, "apt"), { recursive: true, force: true });
  for (const sub of ["usr/share/doc", "usr/share/man", "usr/share/locale", "etc/init.d"])
    fs.rmSync(path.join(root, sub), { recursive: true, force: true });

  const inFolder = (sub) => path.join(ownFolder(), "root", sub);
  const triplet = TRIPLETS[process.arch];
  const libraries = [`usr/lib/${triplet}`, `lib/${triplet}`, `usr/lib/${triplet}/pulseaudio`].filter((sub) =>
    fs.existsSync(path.join(root, sub)),
  );
  const fonts = ["/usr/share/fonts", inFolder("usr/share/fonts")].map((place) => `<dir>${place}</dir>`).join("");
  fs.writeFileSync(
    path.join(building, "fonts.conf"),
    `<?xml version="1.0"?>\n<fontconfig>${fonts}<cachedir>${path.join(ownFolder(), "fonts")}</cachedir></fontconfig>\n`,
  );
  const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const lines = [
    "#!/bin/sh",
    `export LD_LIBRARY_PATH=${quote(libraries.map(inFolder).join(":"))}`,
    `export FONTCONFIG_FILE=${quote(path.join(ownFolder(), "fonts.conf"))}`,
    `exec ${quote(inFolder("usr/lib/chromium/chromium"))} "$@"`,
  ];
  fs.writeFileSync(path.join(building, "chromium"), `${lines.join("\n")}\n`, { mode: 0o755 });
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === import.meta.filename) {
  const found = await ensureChromium();
  console.log(found.program ? `${found.program} (version ${found.version})` : found.why);
  process.exitCode = found.program ? 0 : 1;
}
