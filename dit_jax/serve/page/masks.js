// What is asked of the model: words, points and boxes, a mask each.

import * as api from "./api.js";
import { leaveMaps } from "./maps.js";
import { at, attempt, complain, tell } from "./say.js";
import { active, answered, isEmpty, isHidden, items, last, named, prompted, state } from "./steps.js";
import { tinted } from "./view.js";

const READY = 8; // steps to either side whose masks are kept drawn

export function ask(asked) {
  if (!state.picture) return complain("Choose a picture first.");
  const item = { key: ++state.made, colour: colour(), hidden: null, prompt: prompted(asked) };
  state.picture.steps.go([...items(), item], item.key);
  return look(item);
}

function colour() {
  const colours = state.model.colours;
  const used = items().map((item) => item.colour);
  return colours.find((one) => !used.includes(one)) ?? colours[state.made % colours.length];
}

// The same mask with another prompt; an answer that is still awaited is given up.
function refine(item, change) {
  giveUp(item.prompt);
  const next = { ...item, hidden: null, prompt: prompted({ ...item.prompt, ...change }, answered(item)) };
  state.picture.steps.go(items().map((other) => (other === item ? next : other)), item.key);
  return look(next);
}

function giveUp(prompt) {
  prompt.stop?.abort();
  prompt.stop = null;
}

async function look({ prompt, colour }, how = {}) {
  leaveMaps();
  if (isEmpty(prompt)) return state.draw();
  const { picture } = state;
  const { signal } = (prompt.stop = new AbortController());
  state.draw();
  const answer = await attempt("Looking …", async () => {
    if (await compiling()) tell("Looking … (the model is still being compiled)");
    const said = await api.segment(picture.id, prompt, signal);
    return { said, mask: tinted(said.mask, colour, picture.view) };
  }, how);
  if (signal.aborted) return;
  prompt.stop = null;
  picture.steps.release(READY);
  if (answer) Object.assign(prompt, answer);
  else picture.steps.forget(prompt);
  if (picture !== state.picture) return;
  if (answer && items().some((item) => item.prompt === prompt)) say(prompt);
  state.draw();
  if (answer && !prompt.before && prompt.text !== null) {
    at("found").querySelector(".active")?.scrollIntoView({ block: "nearest" });
  }
}

function say({ text, said, before }) {
  if (said.nothing) tell(`Nothing like “${text ?? "this"}” here, the model says.`);
  else tell(said.share ? `Found ${text ?? "it"}.` : `No pixel for ${text ?? "this"}.`);
  // What was typed stays until it is answered, so that no error loses it.
  if (!before && at("text").value.trim() === text) {
    at("text").value = "";
    at("text").dispatchEvent(new Event("input"));
  }
}

async function compiling() {
  if (!state.model.ready) state.model.ready = (await api.model()).ready;
  return !state.model.ready;
}

// Draws again what was let go.
export function drawn(picture) {
  for (const item of picture.steps.now.items) {
    const prompt = answered(item);
    if (prompt) prompt.mask ??= tinted(prompt.said.mask, item.colour, picture.view);
  }
}

// Of a picture that is shown again: whatever was given up, or never asked.
export function lookAgain() {
  for (const item of items()) if (!item.prompt.said && !item.prompt.stop) look(item, { stays: true });
}

// What is pointed at refines the active mask.

export function point([x, y], label) {
  const item = pointed();
  const { points } = state.model;
  if (item?.prompt.points.length >= points) {
    complain(`A mask takes ${points} points; take some back, or begin another mask.`);
  } else if (item) refine(item, { points: [...item.prompt.points, [x, y, label]] });
  else if (item === null) ask({ points: [[x, y, label]] });
}

// Of a mask without words a box is the start.
export function box(corners) {
  const item = pointed();
  if (item && (item.prompt.text !== null || isEmpty(item.prompt))) refine(item, { box: corners });
  else if (item !== undefined) ask({ box: corners });
}

// The active mask; null where a new one can be begun, undefined where it cannot.
function pointed() {
  if (!state.picture) return undefined;
  const item = active();
  if (item || !state.model.needs_text) return item;
  return complain("Say first what to look for; points and boxes refine its mask.");
}

export function takeBack(item) {
  if (!item) return;
  const { points, box } = item.prompt;
  if (points.length) refine(item, { points: points.slice(0, -1) });
  else if (box) refine(item, { box: null });
}

// The list

export function choose(item) {
  state.picture.steps.now.active = item.key;
  leaveMaps();
  state.draw();
}

export function hide(item) {
  const changed = { ...item, hidden: !isHidden(item) };
  replace(items().map((other) => (other === item ? changed : other)));
}

export function drop(item) {
  giveUp(item.prompt);
  replace(items().filter((other) => other !== item));
  tell(`${named(item)} is gone; Undo brings it back.`);
}

export function clear() {
  for (const item of items()) giveUp(item.prompt);
  replace([]);
  tell("All masks are gone; Undo brings them back.");
}

function replace(changed) {
  const { now } = state.picture.steps;
  const stays = changed.some((item) => item.key === now.active);
  state.picture.steps.go(changed, stays ? now.active : last(changed));
  leaveMaps();
  state.draw();
}

export const undo = () => step("back", "Undone.");
export const redo = () => step("forth", "Done again.");

function step(way, told) {
  const { picture } = state;
  if (!picture?.steps[way]()) return;
  leaveMaps();
  drawn(picture);
  tell(told);
  state.draw();
  lookAgain();
}
