// Gives a Linux machine without a usable GPU a software one: Mesa's lavapipe with its own libc and LLVM, unpacked from
// the distribution's signed packages into the cache folder. No root, and nothing outside that folder changes.
//
// A driver of a newer distribution needs a newer libc than the system's, and exporting LD_LIBRARY_PATH would break every
// other program. So the driver finds its neighbours by a relative rpath, and a copy of the deno binary runs on the
// unpacked libc by a patched interpreter and rpath. Only VK_DRIVER_FILES has to be set.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { architectureOf, findArchive, osRelease, packageFamily, privateAptOptions, TRIPLETS } from "./apt-source.mjs";
import { cacheFolder, lastLines, readJson, runLogged, SetupError, writeJson } from "./tools.mjs";

// Part of the folder's name: a change of the recipe makes a new folder, and an old one is never half right.
const RECIPE = 1;
const PACKAGES = ["mesa-vulkan-drivers", "libvulkan1", "libc6", "patchelf"];
const FIX_BY_HAND =
  "install your GPU's Vulkan driver and the Vulkan loader, or a software one (Fedora: dnf install mesa-vulkan-drivers " +
  "vulkan-loader; Arch: pacman -S vulkan-swrast vulkan-icd-loader; openSUSE: zypper install libvulkan_lvp " +
  "libvulkan1), then start again";

/** Folder of the unpacked driver for this machine's processor. */
export function driverFolder() {
  return path.join(cacheFolder(), "soft-gpu", `driver-${process.arch}-r${RECIPE}`);
}

/** Environment that makes the Vulkan loader see the software GPU alone. */
function environmentOf(driver) {
  const env = { VK_DRIVER_FILES: driver.icd };
  if (hasFastWideVectors() && !process.env.LP_NATIVE_VECTOR_WIDTH) env.LP_NATIVE_VECTOR_WIDTH = "512";
  // Mesa warns on every start where this is unset, as it is in containers.
  if (!process.env.XDG_RUNTIME_DIR) env.XDG_RUNTIME_DIR = os.tmpdir();
  return env;
}

/**
 * Whether vectors of 512 bits pay: Mesa takes 256 unless told, because the first processors with AVX-512 slow down under it.
 * Those of Intel's Ice Lake, AMD's Zen 4 and their successors do not, and all of them have VBMI2. `cpuinfo` is for tests.
 */
export function hasFastWideVectors(cpuinfo = "/proc/cpuinfo") {
  let text;
  try {
    text = fs.readFileSync(cpuinfo, "utf8");
  } catch {
    return false;
  }
  const flags = new Set(/^flags\s*:(.*)$/m.exec(text)?.[1].trim().split(/\s+/) ?? []);
  return ["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vbmi2"].every((flag) => flags.has(flag));
}

/**
 * Makes the software GPU where it is missing. `deno` is the binary to copy, `denoVersion` its version; `rebuild` throws
 * away what is there, `avoid` names a suite not to take. Returns `{deno, env, files, suite, fresh}`: `files` must all
 * exist for a later start to trust the answer, `fresh` says that the driver was unpacked just now.
 * Throws SetupError E-ENV-044 (unknown system), E-ENV-045 (download) or E-ENV-046 (unpacking).
 */
export async function installSoftGpu({ deno, denoVersion, log, say, rebuild = false, avoid = "" }) {
  const folder = driverFolder();
  let driver = rebuild ? null : readJson(path.join(folder, "driver.json"));
  const fresh = !driver || !fs.existsSync(driver.icd) || !fs.existsSync(driver.loader);
  if (fresh) {
    await buildDriver(folder, { log, say, avoid });
    driver = readJson(path.join(folder, "driver.json"));
  }
  const patched = await patchedDeno(driver, { deno, denoVersion, log });
  return {
    deno: patched,
    env: environmentOf(driver),
    files: [patched, driver.icd, driver.library, driver.loader],
    suite: driver.suite,
    fresh,
  };
}

function requireSupportedSystem() {
  const release = osRelease();
  const family = packageFamily(release);
  const hasTools = ["apt-get", "dpkg-deb"].every((tool) => findOnPath(tool));
  if (process.platform !== "linux" || !TRIPLETS[process.arch] || !family || !hasTools) {
    throw new SetupError("E-ENV-044", {
      what: "no Vulkan adapter was found, and a software GPU can be unpacked on Debian and Ubuntu alone",
      where: `${release.name} (${process.arch})`,
      fix: FIX_BY_HAND,
    });
  }
  return { family, codename: release.codename };
}

function findOnPath(name) {
  return (process.env.PATH ?? "").split(path.delimiter).some((folder) => fs.existsSync(path.join(folder, name)));
}

/** Suites to try, newest Mesa first. Packages bring their own libc, so a newer suite than the system's is no risk. */
function suitesFor(family, codename) {
  // Dawn refuses the lavapipe of Debian 12 and older; subgroup matrices appear with the Mesa of Debian forky.
  const newest = family === "debian" ? ["forky"] : ["devel"];
  const own = family === "ubuntu" ? [`${codename}-updates`] : [];
  return [...newest, ...own, codename].filter((suite, index, all) => suite && all.indexOf(suite) === index);
}

async function buildDriver(folder, { log, say, avoid }) {
  const { family, codename } = requireSupportedSystem();
  const archive = findArchive(family, codename);
  if (!archive) {
    throw new SetupError("E-ENV-045", {
      what: `apt has no ${family} package source`,
      where: "/etc/apt",
      why: "the software GPU is downloaded from the machine's own package source",
      fix: `add the ${family} archive to /etc/apt/sources.list, or ${FIX_BY_HAND}`,
    });
  }
  fs.mkdirSync(path.dirname(folder), { recursive: true });
  const building = fs.mkdtempSync(`${folder}.building-`);
  try {
    say("longtail: no GPU found; downloading a software GPU (about 90 MB, once)");
    const suite = await download(building, { family, codename, archive, avoid, log });
    say("longtail: unpacking the software GPU");
    const driver = await unpack(building, folder, { suite, log });
    writeJson(path.join(building, "driver.json"), driver);
    fs.rmSync(path.join(building, "apt"), { recursive: true, force: true });
    fs.rmSync(folder, { recursive: true, force: true });
    fs.renameSync(building, folder);
  } finally {
    fs.rmSync(building, { recursive: true, force: true });
    removeLeftovers(path.dirname(folder));
  }
}

/** Removes what starts that were killed have left behind; this runs under the lock, so nobody is building there. */
function removeLeftovers(parent) {
  for (const name of fs.readdirSync(parent)) {
    if (/\.(building-|patching-)/.test(name)) fs.rmSync(path.join(parent, name), { recursive: true, force: true });
  }
}

async function download(building, { family, codename, archive, avoid, log }) {
  const apt = path.join(building, "apt");
  const options = [
    ...privateAptOptions(apt, architectureOf(process.arch)),
    ...["-o", `Dir::Etc::sourcelist=${apt}/sources.list`, "-o", "Dir::Etc::sourceparts=-"],
  ];
  const components = family === "ubuntu" ? "main universe" : "main";
  const signed = archive.signedBy ? `[signed-by=${archive.signedBy}] ` : "";
  for (const suite of suitesFor(family, codename).filter((name) => name !== avoid)) {
    // Updates of a suite alone lack most packages, so the suite itself stands beside it.
    const suites = suite.endsWith("-updates") ? [suite, codename] : [suite];
    const lines = suites.map((name) => `deb ${signed}${archive.uri} ${name} ${components}\n`);
    fs.writeFileSync(path.join(apt, "sources.list"), lines.join(""));
    for (const name of fs.readdirSync(path.join(apt, "archives"))) {
      if (name.endsWith(".deb")) fs.rmSync(path.join(apt, "archives", name));
    }
    const update = await runLogged("apt-get", [...options, "update", "-q"], { log });
    if (update.code !== 0) continue;
    const install = ["install", "-q", "-y", "--no-install-recommends", "--download-only", ...PACKAGES];
    const got = await runLogged("apt-get", [...options, ...install], { log });
    if (got.code === 0) return suite;
  }
  throw new SetupError("E-ENV-045", {
    what: "the software GPU could not be downloaded",
    where: archive.uri,
    why: `${lastLines(log) || "apt gave no reason"} (log: ${log})`,
    fix: `check the network and apt's proxy settings and start again, or ${FIX_BY_HAND}`,
  });
}

async function unpack(building, folder, { suite, log }) {
  const triplet = TRIPLETS[process.arch];
  const root = path.join(building, "root");
  fs.mkdirSync(root);
  const archives = path.join(building, "apt", "archives");
  const queue = fs.readdirSync(archives).filter((name) => name.endsWith(".deb"));
  const mesaPackage = queue.find((name) => name.startsWith("mesa-vulkan-drivers_")) ?? "";
  const mesa = (mesaPackage.split("_")[1] ?? "unknown").replace(/[^\w.+~-]/g, "-");
  const worker = async () => {
    for (let name = queue.pop(); name; name = queue.pop()) {
      const done = await runLogged("dpkg-deb", ["-x", path.join(archives, name), root], { log });
      if (done.code !== 0) throw unpackError(log, `dpkg-deb cannot unpack ${name}`);
    }
  };
  await Promise.all([worker(), worker()]);

  const libraries = ["usr/lib", "lib"]
    .map((sub) => path.join(root, sub, triplet))
    .filter((place) => fs.existsSync(place) && !fs.lstatSync(path.dirname(place)).isSymbolicLink());
  const inFolder = (file) => path.join(folder, path.relative(building, file));
  const find = (name, places) => places.map((place) => path.join(place, name)).find((file) => fs.existsSync(file));
  const dynamicLinker = process.arch === "x64" ? "ld-linux-x86-64.so.2" : "ld-linux-aarch64.so.1";
  const linkerPlaces = ["usr/lib64", "lib64", "usr/lib", "lib"].map((sub) => path.join(root, sub)).concat(libraries);
  const loader = find(dynamicLinker, linkerPlaces);
  const library = find("libvulkan_lvp.so", libraries);
  if (!loader || !library)
    throw unpackError(log, `${loader ? "libvulkan_lvp.so" : dynamicLinker} is not in the packages`);

  // The other drivers, documentation and locales are three quarters of the size and never read.
  for (const name of fs.readdirSync(path.dirname(library))) {
    if (/^libvulkan_(?!lvp)/.test(name)) fs.rmSync(path.join(path.dirname(library), name));
  }
  for (const sub of ["usr/share", "usr/sbin", "etc", "var"])
    fs.rmSync(path.join(root, sub), { recursive: true, force: true });

  const patchelf = [loader, "--library-path", libraries.join(":"), path.join(root, "usr/bin/patchelf")];
  const rpath = ["$ORIGIN", ...libraries.map(inFolder)].join(":");
  for (const place of libraries) {
    for (const name of fs.readdirSync(place).filter((n) => n === "libvulkan_lvp.so" || /^libLLVM.*\.so/.test(n))) {
      const file = path.join(place, name);
      if (fs.lstatSync(file).isSymbolicLink()) continue;
      const done = await runLogged(patchelf[0], [...patchelf.slice(1), "--set-rpath", rpath, file], { log });
      if (done.code !== 0) throw unpackError(log, `patchelf failed on ${name}`);
    }
  }
  const icd = path.join(building, "lvp_icd.json");
  const answer = {
    suite,
    mesa,
    icd: inFolder(icd),
    library: inFolder(library),
    loader: inFolder(loader),
    libraries: libraries.map(inFolder),
    patchelf: patchelf.map((part) => part.replaceAll(building, folder)),
  };
  writeJson(icd, { ICD: { api_version: "1.4.0", library_path: answer.library }, file_format_version: "1.0.1" });
  return answer;
}

function unpackError(log, why) {
  return new SetupError("E-ENV-046", {
    what: "the software GPU could not be unpacked",
    where: path.join(cacheFolder(), "soft-gpu"),
    why: `${why}: ${lastLines(log)} (log: ${log})`,
    fix: "free about 1 GB there or point XDG_CACHE_HOME to another disk, and start again",
  });
}

/** The copy of deno that runs on the unpacked libc; one for each version of deno and of the driver. */
async function patchedDeno(driver, { deno, denoVersion, log }) {
  const parent = path.join(cacheFolder(), "soft-gpu");
  const folder = path.join(parent, `deno-${denoVersion}-${process.arch}-r${RECIPE}-${driver.mesa}`);
  const binary = path.join(folder, "deno");
  if (fs.existsSync(binary)) return binary;
  const building = fs.mkdtempSync(path.join(parent, "deno.patching-"));
  try {
    const copy = path.join(building, "deno");
    fs.copyFileSync(deno, copy);
    fs.chmodSync(copy, 0o755);
    // An old-style rpath also serves the libraries that Dawn opens by name, like the Vulkan loader.
    const change = [
      "--set-interpreter",
      driver.loader,
      "--force-rpath",
      "--set-rpath",
      driver.libraries.join(":"),
      copy,
    ];
    const done = await runLogged(driver.patchelf[0], [...driver.patchelf.slice(1), ...change], { log });
    if (done.code !== 0) throw unpackError(log, "patchelf failed on the copy of deno");
    // Copies for other versions are 100 MB each and made again in a second, but another checkout may be running one.
    for (const name of fs.readdirSync(parent).filter((entry) => /^deno-\d/.test(entry))) {
      const age = Date.now() - fs.statSync(path.join(parent, name)).mtimeMs;
      if (age > 14 * 86_400_000) fs.rmSync(path.join(parent, name), { recursive: true, force: true });
    }
    fs.renameSync(building, folder);
    return binary;
  } catch (error) {
    if (error instanceof SetupError) throw error;
    throw unpackError(log, error.message);
  } finally {
    fs.rmSync(building, { recursive: true, force: true });
  }
}
