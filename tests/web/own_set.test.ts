// The choice of own pictures and their trigger word: suggested once and in sight, never taken over by another set.

import { beforeEach, expect, test } from "vitest";
import { BUNDLED, bundledChoice } from "../../src/web/pictures/bundled.ts";
import { chooseOther, chooseOwn, OWN_SET, ownSet, writeTrigger } from "../../src/web/pictures/own_set.ts";
import { DEFAULT_SETTINGS } from "../../src/web/settings.ts";
import { settings } from "../../src/web/store.ts";

const picture = { path: "pictures/mine/a.png", width: 64, height: 64, caption: "a cat" };
const withPictures = (pictures: (typeof picture)[]) => {
  ownSet.value = { name: OWN_SET, path: "pictures/mine", pictures, dropped: [] };
};
const bundled = bundledChoice(BUNDLED[1]!);

beforeEach(() => {
  settings.value = { ...DEFAULT_SETTINGS };
});

test("a trigger word is suggested with the first pictures, stays with them, and goes for good when it is taken out", () => {
  withPictures([]);
  chooseOwn();
  expect(settings.value.trigger).toBe("");
  withPictures([picture]);
  chooseOwn();
  expect(settings.value.trigger).toBe("gloss");
  chooseOther(bundled);
  expect(settings.value).toMatchObject({ set: bundled, trigger: "" });
  chooseOwn();
  expect(settings.value.trigger).toBe("gloss");
  writeTrigger("my ");
  writeTrigger("my  dog");
  expect(settings.value.trigger).toBe("my dog");
  writeTrigger("");
  chooseOther(bundled);
  chooseOwn();
  expect(settings.value.trigger).toBe("");
});

test("a trigger word of a link stays with its set", () => {
  settings.value = { ...DEFAULT_SETTINGS, trigger: "older" };
  chooseOther(bundled);
  expect(settings.value.trigger).toBe("older");
});
