// "Pick pictures": three bundled sets, one click each, or pictures of one's own. The choice stands in the form's settings; why
// training cannot start with it yet stands in `pictureProblem` (pictures/problem.ts).

import { useEffect } from "preact/hooks";
import { BUNDLED, type BundledSet, bundledChoice, bundledOf, THUMBNAILS } from "../pictures/bundled.ts";
import { OwnPanel } from "../pictures/own_panel.tsx";
import { chooseAsBefore, chooseOther, chooseOwn, isOwn, ownSet, storedCount } from "../pictures/own_set.ts";
import { Miniature } from "../pictures/thumbnail.tsx";
import { dragging, listenForFiles } from "../pictures/whole_page.ts";
import { settings } from "../store.ts";
import "../styles/pictures.css";

/** Thumbnails on a tile; all of them are below it when it is chosen. */
const ON_TILE = 6;

const choose = (set: BundledSet) => chooseOther(bundledChoice(set));

export function PicturesCard() {
  const chosen = bundledOf(settings.value.set);
  const own = ownSet.value?.pictures ?? [];
  const count = ownSet.value === null ? storedCount.value : own.length;
  useEffect(() => {
    void chooseAsBefore().then(() => {
      if (settings.value.set === null) chooseOther(bundledChoice(BUNDLED[0]!));
    });
    return listenForFiles();
  }, []);
  return (
    <div class={dragging.value ? "pick pick-over" : "pick"}>
      <fieldset class="tiles">
        <legend class="visually-hidden">Pictures to learn from</legend>
        {BUNDLED.map((set) => (
          <label key={set.id} class={chosen === set ? "tile tile-chosen" : "tile"}>
            <input
              type="radio"
              name="picture-set"
              class="visually-hidden"
              checked={chosen === set}
              onChange={() => choose(set)}
            />
            <Strip set={set} count={ON_TILE} />
            <span class="tile-title">{set.title}</span>
            <span class="tile-about">{set.about}</span>
          </label>
        ))}
        <label class={isOwn.value ? "tile tile-chosen" : "tile"}>
          <input
            type="radio"
            name="picture-set"
            class="visually-hidden"
            checked={isOwn.value}
            onChange={() => chooseOwn()}
          />
          {own.length > 0 ? (
            <span class="tile-strip" aria-hidden="true">
              {own.slice(0, ON_TILE).map(({ path }) => (
                <Miniature key={path} path={path} />
              ))}
            </span>
          ) : (
            <span class="tile-own">
              <svg
                aria-hidden="true"
                viewBox="0 0 48 48"
                width="40"
                height="40"
                fill="none"
                stroke="currentColor"
                stroke-width="2"
              >
                <rect x="6" y="10" width="36" height="28" rx="4" />
                <path d="M6 32l10-9 8 7 8-10 10 10" stroke-linejoin="round" />
                <circle cx="17" cy="18" r="3" />
              </svg>
            </span>
          )}
          <span class="tile-title">Your own</span>
          <span class="tile-about">
            {count > 0
              ? `${count} ${count === 1 ? "picture" : "pictures"} in this browser.`
              : "Files, a folder, a .zip, the clipboard or the camera. They never leave this machine."}
          </span>
        </label>
      </fieldset>
      {chosen && <Bundled set={chosen} />}
      {isOwn.value && <OwnPanel />}
      {settings.value.set && !chosen && !isOwn.value && (
        <p class="bundled-shows">
          <strong>From the link.</strong> {settings.value.set.label}: {settings.value.set.items.join(", ")}.
        </p>
      )}
    </div>
  );
}

/** Thumbnails side by side, cut from the set's sheet. */
function Strip({ set, count }: { set: BundledSet; count: number }) {
  return (
    <span class="tile-strip" aria-hidden="true">
      {set.items.slice(0, count).map((item, n) => (
        <Cell key={item} set={set} n={n} />
      ))}
    </span>
  );
}

function Cell({ set, n }: { set: BundledSet; n: number }) {
  const last = set.items.length - 1;
  return (
    <span
      class="cell"
      style={{
        backgroundImage: `url(${THUMBNAILS[set.id]})`,
        backgroundSize: `${100 * (last + 1)}% 100%`,
        backgroundPosition: `${(100 * n) / last}% 0`,
      }}
    />
  );
}

function Bundled({ set }: { set: BundledSet }) {
  const trigger = settings.value.trigger.trim();
  return (
    <div class="bundled">
      <p class="bundled-shows">
        <strong>What to look for.</strong> {set.shows}
      </p>
      <ul class="bundled-pictures">
        {set.items.map((item, n) => (
          <li key={item}>
            <Cell set={set} n={n} />
            <span>{item}</span>
          </li>
        ))}
      </ul>
      <p class="field-hint">
        Captions: <q>{`${trigger ? `${trigger}, ` : ""}${set.style} icon of ${set.items[0]}`}</q> and so on
        {trigger && `, with the trigger word of the link`}. Pictures: {set.attribution}, {set.licence}.
      </p>
    </div>
  );
}
