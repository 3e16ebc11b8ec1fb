// The user's own set as the page knows it: what the worker stored of it, what it left out and why, and why a run cannot start
// with it yet. Pictures are read from the browser's storage for their thumbnails alone.

import { computed, effect, signal } from "@preact/signals";
import type { IncomingFile, PictureSetFacts, WireError } from "../protocol.ts";
import type { PictureChoice } from "../settings.ts";
import { recall, remember } from "../small_state.ts";
import { activeRun, changeSettings, engine, settings, storage, wireError } from "../store.ts";
import { pictureProblem } from "./problem.ts";
import { FREE_WORDS } from "./vocabulary.ts";

/** The folder below `pictures/` that own pictures go to. */
export const OWN_SET = "mine";
export const OWN_PATH = `pictures/${OWN_SET}`;
/** A LoRA of the small model learns best from so many. */
export const MOST_ADVISED = 30;

/** Null until the storage was asked. */
export const ownSet = signal<PictureSetFacts | null>(null);
/** Files of the newest addition that were left out. */
export const leftOut = signal<PictureSetFacts["dropped"]>([]);
/** How many files are being checked, or null. */
export const checking = signal<number | null>(null);
export const ownError = signal<WireError | null>(null);

/** Pictures of this visit by path, for an engine that keeps them elsewhere than in the browser's storage. */
const recent = new Map<string, Blob>();

export const isOwn = computed(() => settings.value.set?.path === OWN_PATH);

/** Pictures whose caption is empty: the reader leaves them out. */
export const withoutCaption = computed(() => (ownSet.value?.pictures ?? []).filter(({ caption }) => caption === ""));

export const ownCaptions = computed(() =>
  (ownSet.value?.pictures ?? []).flatMap(({ caption }) => (caption === "" ? [] : [caption])),
);

effect(() => {
  const silent = isOwn.value ? withoutCaption.value.length : 0;
  const pictures = silent === 1 ? "1 picture" : `${silent} pictures`;
  if (checking.value !== null) pictureProblem.value = "wait until the pictures are checked";
  else pictureProblem.value = silent > 0 ? `write a caption for ${pictures}` : null;
});

/** Pictures of the set as the storage's list has it, before the set itself was asked for. */
export const storedCount = computed(() => storage.value?.sets.find(({ name }) => name === OWN_SET)?.pictures ?? 0);

// The storage panel removes sets too.
effect(() => {
  const known = ownSet.peek()?.pictures.length;
  if (storage.value && known !== undefined && known !== storedCount.value) void loadOwnSet();
});

function take(facts: PictureSetFacts): void {
  ownSet.value = facts;
  if (isOwn.value) chooseOwn();
}

/** The trigger word of the own set, which another set does not take over; null until one was suggested or written. */
let ownTrigger: string | null = null;

/** Makes the own set the one that is trained on. */
export function chooseOwn(): void {
  const pictures = ownSet.value?.pictures.length ?? 0;
  const set = ownChoice();
  const before = isOwn.value ? settings.value.trigger : (ownTrigger ?? settings.value.trigger);
  // A word is suggested once, with the first pictures: the field that shows it comes with them.
  const suggested = before === "" && ownTrigger === null && pictures > 0 && !activeRun.value?.active;
  changeSettings({ set, trigger: suggested ? FREE_WORDS[0] : before });
  if (suggested || before !== "") ownTrigger = settings.value.trigger;
  keepChoice();
}

/** An address carries no pictures of one's own; that they were chosen is remembered in this browser. */
const keepChoice = () => void remember("own", { chosen: isOwn.value, trigger: ownTrigger });

/** Chooses the own set again where it was chosen at the last visit and nothing else was meanwhile. */
export async function chooseAsBefore(): Promise<boolean> {
  const before = await recall("own");
  if (before && ownTrigger === null) ownTrigger = before.trigger;
  if (!before?.chosen || settings.value.set !== null) return false;
  changeSettings({ set: ownChoice(), trigger: settings.value.trigger || (ownTrigger ?? "") });
  return true;
}

const ownChoice = (): PictureChoice => ({
  label: "my pictures",
  path: OWN_PATH,
  items: [],
  styles: [],
  pictures: ownSet.value?.pictures.length ?? 0,
});

/** Takes the word that was written; an empty one means none, and none is suggested again. */
export function writeTrigger(text: string): void {
  // A blank at the end may be on its way to a second word.
  ownTrigger = text.replace(/\s+/g, " ").trimStart();
  changeSettings({ trigger: ownTrigger });
  keepChoice();
}

/** Leaves the own set for another; its trigger word stays behind. */
export function chooseOther(set: PictureChoice): void {
  changeSettings({ set, trigger: isOwn.value ? "" : settings.value.trigger });
  keepChoice();
}

async function tried<T>(work: () => Promise<T>): Promise<T | null> {
  ownError.value = null;
  try {
    return await work();
  } catch (error) {
    ownError.value = wireError(error);
    return null;
  }
}

/** Asks the worker for the stored set. */
export const loadOwnSet = () =>
  tried(async () => {
    take(await (await engine()).pictureSet(OWN_SET));
  });

/** Hands files to the worker; what it left out stands in `leftOut`. */
export async function addFiles(files: IncomingFile[], cut = false): Promise<void> {
  if (files.length === 0) return;
  for (const { name, blob } of files) recent.set(name.split("/").at(-1)!, blob);
  checking.value = (checking.value ?? 0) + files.length;
  chooseOwn();
  await tried(async () => {
    const facts = await (await engine()).addPictures(OWN_SET, files);
    const more = { name: "more files", code: "E-DATA-051", why: `at most ${files.length} files are taken at a time` };
    leftOut.value = cut ? [...facts.dropped, more] : facts.dropped;
    take(facts);
  });
  const left = (checking.value ?? 0) - files.length;
  checking.value = left > 0 ? left : null;
  // A storage that ran full keeps what was stored before.
  if (ownError.value) {
    const error = ownError.value;
    await loadOwnSet();
    ownError.value = error;
  }
}

/** Writes a caption at once on the page and then in the storage. */
export async function writeCaption(path: string, caption: string): Promise<void> {
  const set = ownSet.value;
  if (!set) return;
  const pictures = set.pictures.map((picture) => (picture.path === path ? { ...picture, caption } : picture));
  ownSet.value = { ...set, pictures };
  await tried(async () => (await engine()).setCaption(path, caption));
}

/** Gives one text to every picture without a caption. */
export async function captionTheRest(caption: string): Promise<void> {
  for (const { path } of withoutCaption.value) await writeCaption(path, caption);
}

export async function removePicture(path: string): Promise<void> {
  await tried(async () => (await engine()).removePicture(path));
  await loadOwnSet();
}

export async function removeAll(): Promise<void> {
  await tried(async () => (await engine()).removeSet(OWN_SET));
  leftOut.value = [];
  await loadOwnSet();
}

/** A stored picture's bytes; null where they are gone. */
export async function storedPicture(path: string): Promise<Blob | null> {
  const parts = path.split("/");
  const name = parts.pop()!;
  try {
    let folder = await navigator.storage.getDirectory();
    for (const part of parts) folder = await folder.getDirectoryHandle(part);
    return await (await folder.getFileHandle(name)).getFile();
  } catch {
    return recent.get(name) ?? null;
  }
}
