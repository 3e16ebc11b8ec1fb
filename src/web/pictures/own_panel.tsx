// The panel of own pictures: ways in (drop, paste, files, folder, camera), what was left out and why, the trigger word, and
// the pictures with their captions. Everything is checked by the worker; nothing leaves the machine.

import { useEffect, useState } from "preact/hooks";
import { save, zipOf } from "../keep/zip.ts";
import { settings } from "../store.ts";
import { Camera } from "./camera.tsx";
import { filesOfInput } from "./incoming.ts";
import {
  addFiles,
  captionTheRest,
  checking,
  leftOut,
  loadOwnSet,
  MOST_ADVISED,
  OWN_PATH,
  ownError,
  ownSet,
  removeAll,
  storedPicture,
  withoutCaption,
  writeTrigger,
} from "./own_set.ts";
import { Thumbnail } from "./thumbnail.tsx";
import { FREE_WORDS, loadVocabulary, unknownWords, vocabulary } from "./vocabulary.ts";
import { dragging } from "./whole_page.ts";

/** Pictures that are shown before "show all" is pressed. */
const SHOWN = 30;
const ACCEPT = "image/png,image/jpeg,image/webp,image/avif,image/bmp,.zip,.txt,.caption,.jsonl";

export function OwnPanel() {
  const [camera, setCamera] = useState(false);
  useEffect(() => {
    void loadVocabulary();
    if (ownSet.value === null) void loadOwnSet();
  }, []);

  const chosen = ({ currentTarget }: { currentTarget: HTMLInputElement }) => {
    const { files, cut } = filesOfInput(currentTarget.files ?? []);
    // The same file can be chosen again after it was removed.
    void addFiles(files, cut).finally(() => {
      currentTarget.value = "";
    });
  };
  const { pictures = [] } = ownSet.value ?? {};

  return (
    <div class="own">
      <div class={dragging.value ? "drop-zone drop-zone-over" : "drop-zone"}>
        <p class="drop-title">Drop pictures, a folder or a .zip here, or paste</p>
        <div class="row drop-ways">
          <label class="button">
            <input type="file" class="visually-hidden" multiple accept={ACCEPT} onChange={chosen} />
            Files
          </label>
          <label class="button">
            <input
              type="file"
              class="visually-hidden"
              multiple
              ref={(input) => input?.setAttribute("webkitdirectory", "")}
              onChange={chosen}
            />
            Folder
          </label>
          <button type="button" class="button" aria-expanded={camera} onClick={() => setCamera(!camera)}>
            Camera
          </button>
        </div>
        <p class="field-hint">
          5 to {MOST_ADVISED} pictures of one thing or one style. They stay on this machine: the page can reach no other
          address.
        </p>
      </div>
      {camera && <Camera close={() => setCamera(false)} />}
      <p class="own-status" aria-live="polite">
        {checking.value !== null
          ? `Checking ${checking.value} ${checking.value === 1 ? "file" : "files"} …`
          : pictures.length > 0
            ? `${pictures.length} ${pictures.length === 1 ? "picture" : "pictures"}${pictures.length > MOST_ADVISED ? ` – ${MOST_ADVISED} are enough for the small model` : ""}`
            : ""}
      </p>
      {ownError.value && (
        <p role="alert" class="notice notice-bad">
          <code>{ownError.value.code}</code> {ownError.value.what}
          {ownError.value.why ? `: ${ownError.value.why}` : ""}
          {ownError.value.fix ? `. ${ownError.value.fix}` : ""}
        </p>
      )}
      <LeftOut />
      {pictures.length > 0 && (
        <>
          <Trigger />
          <EmptyCaptions />
          <Pictures />
          <SetActions />
        </>
      )}
    </div>
  );
}

function Pictures() {
  const [all, setAll] = useState(false);
  const { pictures = [] } = ownSet.value ?? {};
  const shown = all ? pictures : pictures.slice(0, SHOWN);
  return (
    <>
      <ul class="own-pictures">
        {shown.map((picture, index) => (
          <Thumbnail key={picture.path} picture={picture} index={index} />
        ))}
      </ul>
      {shown.length < pictures.length && (
        <button type="button" class="button" onClick={() => setAll(true)}>
          Show all {pictures.length}
        </button>
      )}
    </>
  );
}

function LeftOut() {
  const files = leftOut.value;
  if (files.length === 0) return null;
  const title = files.length === 1 ? "1 file was left out" : `${files.length} files were left out`;
  return (
    <details class="left-out" open={files.length <= 3}>
      <summary>{title}</summary>
      <ul>
        {files.map(({ name, code, why }, i) => (
          <li key={`${name}${i}`}>
            <span class="left-out-name">{name}</span>
            <span>{why}</span>
            <code>{code}</code>
          </li>
        ))}
      </ul>
    </details>
  );
}

function Trigger() {
  const { trigger } = settings.value;
  const known = vocabulary.value;
  const unread = known ? unknownWords(trigger, known.words) : [];
  return (
    <div class="field">
      <label for="trigger">Trigger word</label>
      <input
        class="input trigger-input"
        id="trigger"
        type="text"
        list="free-words"
        autocomplete="off"
        spellcheck={false}
        maxLength={60}
        value={trigger}
        aria-describedby="trigger-hint"
        onInput={({ currentTarget }) => writeTrigger(currentTarget.value)}
      />
      <datalist id="free-words">
        {FREE_WORDS.map((word) => (
          <option key={word} value={word} />
        ))}
      </datalist>
      <p class={unread.length > 0 ? "field-hint own-unread" : "field-hint"} id="trigger-hint">
        {unread.length > 0
          ? `The small model has no word “${unread.join(" ")}”: it reads as nothing. `
          : "Put in front of every caption, and in your prompt it calls up what was learnt; empty for none. "}
        <em>{FREE_WORDS.join(" and ")}</em> are words that it reads and has no picture for
        {trigger === FREE_WORDS[0] ? "; the first is filled in to begin with." : "."}
      </p>
    </div>
  );
}

function EmptyCaptions() {
  const [text, setText] = useState("");
  const count = withoutCaption.value.length;
  if (count === 0) return null;
  return (
    <form
      class="field empty-captions"
      onSubmit={(event) => {
        event.preventDefault();
        void captionTheRest(text.trim());
      }}
    >
      <label for="rest-caption">
        {count === 1 ? "1 picture has" : `${count} pictures have`} no caption. One text for{" "}
        {count === 1 ? "it" : "all of them"}:
      </label>
      <div class="row">
        <input
          class="input grow"
          id="rest-caption"
          type="text"
          placeholder="icon of cat"
          value={text}
          onInput={({ currentTarget }) => setText(currentTarget.value)}
        />
        <button type="submit" class="button" disabled={text.trim() === ""}>
          Use it
        </button>
      </div>
    </form>
  );
}

function SetActions() {
  const [asked, setAsked] = useState(false);
  const download = async () => {
    async function* files() {
      for (const { path, caption } of ownSet.value?.pictures ?? []) {
        const blob = await storedPicture(path);
        if (blob) yield { name: path, blob };
        yield { name: path.replace(/\.\w+$/, ".txt"), blob: new Blob([caption]) };
      }
    }
    save(await zipOf(files()), "pictures.zip");
  };
  return (
    <div class="row own-actions">
      <button type="button" class="button" onClick={() => void download()}>
        Download this set (.zip)
      </button>
      {asked ? (
        <>
          <span>Remove all pictures from this browser?</span>
          <button
            type="button"
            class="button button-danger"
            onClick={() => {
              setAsked(false);
              void removeAll();
            }}
          >
            Remove
          </button>
          <button type="button" class="button" onClick={() => setAsked(false)}>
            Keep
          </button>
        </>
      ) : (
        <button type="button" class="button" onClick={() => setAsked(true)}>
          Remove all
        </button>
      )}
      <p class="field-hint">
        Kept in this browser as <code>{OWN_PATH}/</code>, each picture with a .txt: what{" "}
        <code>longtail train --data=</code> reads.
      </p>
    </div>
  );
}
