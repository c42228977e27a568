// The page: what is open, what is asked, and what happens on each event.

import * as api from "./api.js";
import { focusOf, listed } from "./list.js";
import { Maps } from "./maps.js";
import { View, tinted } from "./view.js";

const at = (id) => document.getElementById(id);
const view = new View(at("picture"));
const state = { model: null, picture: null, items: [], active: null, made: 0, hovered: null, pinned: null };

async function start() {
  const model = (state.model = await api.model());
  const reads = model.reads ? "reads words" : "takes points";
  at("model").textContent = `${model.name} · ${model.size} px · ${reads}`;
  at("largest").textContent = `${Math.floor(model.largest / 2 ** 20)} MB`;
  at("text").maxLength = model.longest;
  if (!model.reads) {
    at("text").hidden = true;
    document.querySelector("label[for=text]").textContent = "Click on the picture";
    at("find").textContent = "New mask";
  }
}

// Pictures

async function open(source) {
  const opened = await attempt("Opening …", async () => {
    const said = await source();
    return { said, photo: await api.image(api.pictureUrl(said.id)) };
  });
  if (!opened) return;
  const { said, photo } = opened;
  Object.assign(state, { picture: said, items: [], active: null });
  leaveMaps();
  view.show(photo, said);
  at("drop").hidden = true;
  at("tools").hidden = at("kinds").hidden = at("keys").hidden = false;
  at("save").hidden = !said.drawn;
  suggest(state.model.reads ? said.texts : []);
  tell(`The picture has ${said.width} × ${said.height} pixels.`);
  draw();
  if (state.model.reads) at("text").focus();
}

function openFile(file) {
  if (!file) return;
  if (file.size > state.model.largest) {
    complain(`${file.name || "The picture"} is larger than ${at("largest").textContent}.`);
  } else open(() => api.upload(file));
}

function suggest(texts) {
  const line = at("suggestions");
  line.hidden = !texts.length;
  line.replaceChildren("Try: ", ...texts.map((text) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    button.addEventListener("click", () => ask(text));
    return button;
  }));
}

// Masks

function ask(text) {
  if (!state.picture) return complain("Choose a picture first.");
  const colours = state.model.colours;
  const used = state.items.map((item) => item.colour);
  const colour = colours.find((one) => !used.includes(one)) ?? colours[state.made % colours.length];
  const item = { key: ++state.made, picture: state.picture.id, text, colour, points: [], answer: null, mask: null, maps: null, asking: null, turn: 0 };
  state.items.push(item);
  state.active = item;
  if (text === null) return draw();
  return look(item);
}

// Asks about an item as it is now; an older answer that comes later is left alone.
async function look(item) {
  const turn = ++item.turn;
  leaveMaps();
  if (item.text === null && !item.points.length) {
    Object.assign(item, { answer: null, mask: null });
    return draw();
  }
  draw();
  const answer = await attempt("Looking …", async () => {
    if (await compiling()) tell("Looking … (the model is still being compiled)");
    return api.segment(question(item));
  });
  if (turn !== item.turn || !state.items.includes(item)) return;
  if (!answer) {
    if (!item.answer) drop(item);
    else item.points = item.answered;
    return draw();
  }
  const mask = tinted(await api.image(answer.mask), item.colour, state.picture.view);
  const first = !item.answer;
  Object.assign(item, { answer, mask, maps: null, asking: null, answered: [...item.points] });
  const asked = item.text ?? "this";
  if (answer.nothing) tell(`Nothing like “${asked}” here, the model says.`);
  else tell(answer.share ? `Found ${item.text ?? "it"}.` : `No pixel for ${asked}.`);
  draw();
  // What was typed stays until it is answered, so that no error loses it.
  if (first && at("text").value.trim() === item.text) at("text").value = "";
  if (first && item.text !== null) at("found").querySelector(".active")?.scrollIntoView({ block: "nearest" });
}

function question(item) {
  return { picture: item.picture, text: item.text, points: item.points };
}

async function compiling() {
  if (!state.model.ready) state.model.ready = (await api.model()).ready;
  return !state.model.ready;
}

function download(item) {
  const words = (item.text ?? "").toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 40).replace(/^-|-$/g, "");
  api.saveUrl(item.answer.mask, `mask-${words || "points"}.png`);
  tell("Saved.");
}

function drop(item) {
  item.turn++;
  state.items = state.items.filter((other) => other !== item);
  if (state.active === item) state.active = state.items.at(-1) ?? null;
  if (isOf(item, state.hovered)) state.hovered = null;
  if (isOf(item, state.pinned)) state.pinned = null;
  draw();
}

function point([x, y], label) {
  if (!state.picture) return;
  if (!state.active && state.model.needs_text) return complain("Say first what to look for; points refine its mask.");
  if (!state.active) ask(null);
  const item = state.active;
  item.points = [...item.points, [x, y, label]];
  look(item);
}

function undo(item) {
  if (!item?.points.length) return;
  item.points = item.points.slice(0, -1);
  look(item);
}

// Word maps: of the word under the mouse or with the focus, else of the one that was clicked.

const isOf = (item, seen) => seen?.item === item;
const isWord = (seen, item, word) => isOf(item, seen) && seen.word === word;

function hover(item, word) {
  if (word !== null && isWord(state.hovered, item, word)) return;
  state.hovered = word === null ? null : { item, word };
  return word === null ? draw({ list: false }) : showMaps(item);
}

function pin(item, word) {
  if (isWord(state.pinned, item, word)) {
    leaveMaps();
    return draw({ list: false });
  }
  state.pinned = { item, word };
  view.canvas.scrollIntoView({ block: "nearest" });
  return showMaps(item);
}

function leaveMaps() {
  state.hovered = state.pinned = null;
}

async function showMaps(item) {
  draw({ list: false });
  const { answer } = item;
  if (item.maps || !answer) return;
  item.asking ??= attempt("Looking at the words …", () => api.words({ ...question(item), points: item.answered }), { stays: true });
  const said = await item.asking;
  if (item.answer !== answer) return;
  item.asking = null;
  if (!said) {
    if (isOf(item, state.pinned)) state.pinned = null;
  } else if (!item.maps) {
    item.maps = new Maps(said);
    tell(said.remark ?? "");
  }
  draw({ list: false });
}

// Drawing

function draw({ list = true } = {}) {
  const { items, active } = state;
  const seen = state.hovered ?? state.pinned;
  const maps = seen?.item.maps;
  const shown = maps ?? active?.maps;
  at("maps").hidden = !shown;
  at("maps").classList.toggle("pinned", Boolean(state.pinned));
  if (shown) at("layer").max = shown.layers.length;
  const layer = Number(at("layer").value);
  const heat = maps ? maps.heat(layer, seen.word) : null;
  if (state.picture) view.draw({ items, active, heat });
  if (list) drawList();
  for (const word of document.querySelectorAll("button.word")) {
    word.setAttribute("aria-pressed", String(word.dataset.focus === focusOf(state.pinned)));
  }
  if (shown) write("layer-name", shown.name(layer));
  write("word", maps ? maps.sentence(layer, seen.word) : "Click on a word to keep its map.");
  const masks = items.filter((item) => item.mask).length;
  view.canvas.setAttribute("aria-label", `Picture with ${masks} mask${masks === 1 ? "" : "s"}`);
}

// Rebuilds the list and keeps the focus where it was.
function drawList() {
  const focused = document.activeElement?.dataset?.focus;
  const acts = { choose, drop, undo, download, hover, pin };
  at("found").replaceChildren(...listed(state.items, state.active, acts));
  if (!focused) return;
  const again = [...document.querySelectorAll("[data-focus]")].find((one) => one.dataset.focus === focused);
  again?.focus();
}

function choose(item) {
  state.active = item;
  leaveMaps();
  draw();
}

// Messages

// A message that `stays` moves nothing while a word below it is being clicked.
async function attempt(doing, work, { stays = false } = {}) {
  if (!stays) complain("");
  tell(doing);
  document.body.setAttribute("aria-busy", "true");
  try {
    return await work();
  } catch (error) {
    complain(error.message);
    return null;
  } finally {
    tell("");
    document.body.removeAttribute("aria-busy");
  }
}

function complain(text) {
  write("message", text);
  at("message").hidden = !text;
  if (text) at("message").scrollIntoView({ block: "nearest" });
}

function tell(text) {
  write("status", text);
}

// What is written again would be read out again.
function write(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

// Events

at("file").addEventListener("change", (event) => {
  openFile(event.target.files[0]);
  event.target.value = "";
});
for (const button of document.querySelectorAll(".example")) {
  button.addEventListener("click", () => open(api.example));
}
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (!state.model.reads) ask(null);
  else if (text) {
    at("text").select(); // what is typed next takes its place
    ask(text);
  } else complain("Type what to look for.");
});
at("layer").addEventListener("input", () => draw({ list: false }));
at("save").addEventListener("click", async () => {
  const { id } = state.picture;
  await attempt("Saving …", () => api.save(api.drawingUrl(id), "drawing.png"));
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  leaveMaps();
  draw({ list: false });
});

const stage = at("stage");
for (const kind of ["dragenter", "dragover"]) {
  stage.addEventListener(kind, (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) stage.addEventListener(kind, () => stage.classList.remove("over"));
// A picture dropped beside the stage would otherwise replace the page.
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  openFile(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => openFile(event.clipboardData.files[0]));

view.canvas.addEventListener("click", (event) => {
  view.cross = null;
  point(view.place(event), labelOf(event));
});
// What is chosen below the picture; with Shift, the other.
function labelOf(event) {
  return Number(at("for").checked !== event.shiftKey);
}
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
view.canvas.addEventListener("keydown", (event) => {
  if (MOVES[event.key]) view.moveCross(...MOVES[event.key]);
  else if (event.key === "Enter" || event.key === " ") {
    if (!view.cross) view.moveCross(0, 0);
    point(view.cross, labelOf(event));
  } else if (event.key === "Backspace" || event.key === "Delete") undo(state.active);
  else if (event.key === "Escape") view.cross = null;
  else return;
  event.preventDefault();
  draw({ list: false });
});
view.canvas.addEventListener("blur", () => {
  view.cross = null;
  if (state.picture) draw({ list: false });
});

start().catch((error) => complain(error.message));
