// The page: what is open, what is asked, and what happens on each event.

import * as api from "./api.js";
import { listed } from "./list.js";
import { Maps } from "./maps.js";
import { View, tinted } from "./view.js";

const at = (id) => document.getElementById(id);
const view = new View(at("picture"));
const state = { model: null, picture: null, items: [], active: null, hovered: null, made: 0 };

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
  const said = await attempt("Opening …", source);
  if (!said) return;
  const photo = await api.image(api.pictureUrl(said.id));
  Object.assign(state, { picture: said, items: [], active: null, hovered: null });
  view.show(photo, said);
  at("drop").hidden = true;
  at("tools").hidden = at("keys").hidden = false;
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
  const item = { key: ++state.made, text, colour, points: [], answer: null, mask: null, maps: null, asking: null, turn: 0 };
  state.items.push(item);
  state.active = item;
  at("text").value = "";
  if (text === null) return draw();
  return look(item);
}

// Asks about an item as it is now; an older answer that comes later is left alone.
async function look(item) {
  const turn = ++item.turn;
  if (item.text === null && !item.points.length) {
    Object.assign(item, { answer: null, mask: null });
    return draw();
  }
  draw();
  const question = { picture: state.picture.id, text: item.text, points: item.points };
  const answer = await attempt("Looking … (the first time, the model is compiled)", () => api.segment(question));
  if (turn !== item.turn) return;
  if (!answer) {
    if (!item.answer) drop(item);
    else item.points = item.answered;
    return draw();
  }
  const mask = tinted(await api.image(answer.mask), item.colour);
  Object.assign(item, { answer, mask, maps: null, asking: null, answered: [...item.points] });
  tell(answer.share ? `Found ${item.text ?? "it"}.` : `No pixel for ${item.text ?? "this"}.`);
  draw();
}

function drop(item) {
  item.turn++;
  state.items = state.items.filter((other) => other !== item);
  if (state.active === item) state.active = state.items.at(-1) ?? null;
  if (state.hovered?.item === item) state.hovered = null;
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

// Word maps

async function hover(item, word) {
  if (word === null) {
    state.hovered = null;
    return draw({ list: false });
  }
  state.hovered = { item, word };
  if (!item.maps && item.answer) {
    const answer = item.answer;
    item.asking ??= attempt("Looking at the words …", () => api.words(answer.id));
    const said = await item.asking;
    if (item.answer !== answer) return;
    item.asking = null;
    if (!said) return;
    item.maps ??= new Maps(said);
    tell(said.remark ?? "");
  }
  draw({ list: false });
}

// Drawing

function draw({ list = true } = {}) {
  const { hovered, items, active } = state;
  const maps = hovered?.item.maps;
  const layer = Number(at("layer").value);
  const heat = maps ? maps.heat(Math.min(layer, maps.layers.length), hovered.word) : null;
  if (state.picture) view.draw({ items, active, heat });
  if (list) drawList();
  const shown = maps ?? active?.maps;
  at("maps").hidden = !shown;
  if (shown) {
    at("layer").max = shown.layers.length;
    at("layer-name").textContent = shown.name(Number(at("layer").value));
  }
  at("word").textContent = maps ? maps.sentence(Number(at("layer").value), hovered.word) : "Hover over a word.";
  const masks = items.filter((item) => item.mask).length;
  view.canvas.setAttribute("aria-label", `Picture with ${masks} mask${masks === 1 ? "" : "s"}`);
}

// Rebuilds the list and keeps the focus where it was.
function drawList() {
  const focused = document.activeElement?.dataset?.focus;
  const acts = { choose, drop, undo, hover };
  at("found").replaceChildren(...listed(state.items, state.active, acts));
  if (!focused) return;
  const again = [...document.querySelectorAll("[data-focus]")].find((one) => one.dataset.focus === focused);
  again?.focus();
}

function choose(item) {
  state.active = item;
  draw();
}

// Messages

async function attempt(doing, work) {
  complain("");
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
  at("message").textContent = text;
  at("message").hidden = !text;
}

function tell(text) {
  at("status").textContent = text;
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
  else if (text) ask(text);
  else complain("Type what to look for.");
});
at("layer").addEventListener("input", () => draw({ list: false }));

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
  point(view.place(event), event.shiftKey ? 0 : 1);
});
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
view.canvas.addEventListener("keydown", (event) => {
  if (MOVES[event.key]) view.moveCross(...MOVES[event.key]);
  else if (event.key === "Enter" || event.key === " ") {
    if (!view.cross) view.moveCross(0, 0);
    point(view.cross, event.shiftKey ? 0 : 1);
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
