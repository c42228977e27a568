// Pictures: opened from files, drawn by the server, or found again by the page's address.

import * as api from "./api.js";
import { leaveMaps } from "./maps.js";
import { ask, drawn, lookAgain } from "./masks.js";
import { at, attempt, complain, element, later, several, tell } from "./say.js";
import { Steps, last, prompted, state } from "./steps.js";

export async function openFiles(files) {
  for (const [i, file] of [...files].entries()) {
    await open(() => sent(file, files.length > 1), { name: file.name, file, stays: i > 0 });
  }
}

async function sent(file, isOneOfMany) {
  const name = file.name || "The picture";
  const { largest } = state.model;
  if (file.size > largest) throw new Error(`${name} is larger than ${megabytes(largest)}.`);
  const data = await file.arrayBuffer().catch(() => {
    throw new Error(`${name} cannot be read; is it a folder, or gone?`);
  });
  return api.upload(data).catch((error) => {
    throw isOneOfMany ? new Error(`${name}: ${error.message}`) : error;
  });
}

export const megabytes = (bytes) => `${Math.floor(bytes / 2 ** 20)} MB`;
export const draw = () => open(api.example, { name: "" });

async function open(source, { name, file = null, ...how }) {
  const opened = await attempt("Opening …", async () => {
    const said = await source();
    return { ...said, photo: await api.image(api.pictureUrl(said.id)) };
  }, how);
  if (!opened) return;
  const number = state.pictures.length + 1;
  const picture = { ...opened, name: name || `picture-${number}.png`, file, sharp: null, steps: new Steps() };
  state.pictures.push(picture);
  await show(picture);
  if (state.model.reads) at("text").focus();
}

// A picture that is no longer open leaves the page.
export async function show(picture) {
  const count = state.pictures.length;
  picture.photo ??= await attempt("Opening …", () => photo(picture), { stays: true });
  if (!picture.photo) return state.picture || state.pictures.length === count ? state.draw() : showAny();
  picture.view = [picture.photo.naturalWidth, picture.photo.naturalHeight];
  drawn(picture);
  if (state.picture && state.picture !== picture) letGo(state.picture);
  state.picture = picture;
  leaveMaps();
  state.view.show(picture.photo, picture);
  suggest(state.model.reads ? picture.texts : []);
  tell(`The picture has ${picture.width} × ${picture.height} pixels.`);
  state.draw();
  lookAgain();
}

// What takes much memory while it is not seen.
function letGo(picture) {
  picture.steps.release(0);
  for (const item of picture.steps.now.items) item.prompt.mask = null;
  if (picture.sharp) picture.sharp.close();
  picture.sharp = null;
}

async function photo(picture) {
  try {
    return await api.image(api.pictureUrl(picture.id));
  } catch (error) {
    if (error.status === 404) state.pictures.splice(state.pictures.indexOf(picture), 1);
    throw error;
  }
}

function showAny(place = 0) {
  const next = state.pictures[Math.min(place, state.pictures.length - 1)];
  return next ? show(next) : state.draw();
}

// The browser's Back opens it again.
export async function close() {
  remember.cancel();
  history.replaceState(null, "", address());
  const place = state.pictures.indexOf(state.picture);
  state.pictures.splice(place, 1);
  state.picture = null;
  history.pushState(null, "", address());
  leaveMaps();
  await showAny(place);
  tell("Closed; the browser's Back opens it again.");
}

export function another(step) {
  const next = state.pictures[state.pictures.indexOf(state.picture) + step];
  if (next) show(next);
}

// What the browser can make of the file itself, for who looks closely: the server shows less.
export async function sharpen(view) {
  const { picture } = state;
  const { file, sharp, width, height } = picture;
  if (view.zoom === 1 || !file || sharp !== null || width <= picture.view[0]) return;
  picture.sharp = false; // while it is read, and where it cannot be: not every browser reads TIFF
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap || picture !== state.picture || bitmap.width !== width || bitmap.height !== height) {
    return bitmap?.close();
  }
  picture.sharp = view.photo = bitmap;
  state.draw({ list: false });
}

function suggest(texts) {
  const line = at("suggestions");
  line.hidden = !texts.length;
  line.replaceChildren("Try: ", ...texts.map((text) => {
    const button = element("button", { type: "button", textContent: text });
    button.addEventListener("click", () => ask({ text }));
    return button;
  }));
}

export function drawStrip() {
  const strip = at("strip");
  strip.hidden = state.pictures.length < 2;
  const buttons = state.pictures.map((picture, i) => {
    picture.button ??= thumbnail(picture);
    const masks = several(picture.steps.now.items.length, "mask");
    picture.button.setAttribute("aria-label", `Picture ${i + 1}, ${picture.name}: ${masks}`);
    picture.button.setAttribute("aria-pressed", String(picture === state.picture));
    return picture.button;
  });
  // What is put in again would lose the focus.
  if (buttons.some((button, i) => strip.children[i] !== button) || strip.children.length > buttons.length) {
    strip.replaceChildren(...buttons);
  }
}

function thumbnail(picture) {
  const image = element("img", { src: api.pictureUrl(picture.id), alt: "", title: picture.name });
  const button = element("button", { type: "button" }, image);
  button.addEventListener("click", () => show(picture));
  return button;
}

// The address says what is open and asked, behind its #, which no browser sends: a link for this
// machine, and what reloading the page goes by.

const FORM = 1;

export function address() {
  const asked = ({ hidden, prompt: { text, points, box } }) => ({ text, points, box, hidden });
  const pictures = state.pictures.map(({ id, name, width, height, texts, drawn, steps }) => (
    { id, name, width, height, texts, drawn, asked: steps.now.items.map(asked) }
  ));
  const { pathname } = location;
  if (!pictures.length) return pathname;
  return `${pathname}#${packed({ form: FORM, shown: state.pictures.indexOf(state.picture), pictures })}`;
}

export function packed(value) {
  const bytes = new TextEncoder().encode(JSON.stringify(value));
  const letters = Array.from(bytes, (byte) => String.fromCharCode(byte)).join("");
  return btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

// Raises an Error for what no page packed.
export function unpacked(text) {
  try {
    const letters = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    const said = JSON.parse(new TextDecoder().decode(Uint8Array.from(letters, (one) => one.charCodeAt(0))));
    if (said.form === FORM && said.pictures.every(isPicture)) return said;
  } catch {
    // said below
  }
  throw new Error("This link is not whole; open the picture anew.");
}

const isText = (value) => typeof value === "string";
const areNumbers = (values, count) => values.length === count && values.every(Number.isFinite);
const isPrompt = ({ text, points, box, hidden }) =>
  (text === null || isText(text)) && points.every((one) => areNumbers(one, 3)) &&
  (box === null || areNumbers(box, 4)) && [null, true, false].includes(hidden);
const isPicture = ({ id, name, width, height, texts, drawn, asked }) =>
  /^[\w-]+$/.test(id) && isText(name) && width > 0 && height > 0 && texts.every(isText) &&
  typeof drawn === "boolean" && asked.every(isPrompt);

// Browsers do not like to be told of every click.
export const remember = later(300, () => history.replaceState(null, "", address()));

export async function restore() {
  const text = location.hash.slice(1);
  const said = text && (await attempt("Opening …", async () => unpacked(text)));
  state.pictures = said ? said.pictures.map(found) : [];
  state.picture = null;
  const shown = state.pictures[said?.shown] ?? state.pictures[0];
  if (shown) await show(shown);
  else state.draw();
}

function found({ asked, ...about }) {
  const colours = state.model.colours;
  const items = asked.map(({ hidden, ...prompt }, i) => (
    { key: ++state.made, colour: colours[i % colours.length], hidden, prompt: prompted(prompt) }
  ));
  const steps = new Steps();
  steps.now = { items, active: last(items) };
  return { ...about, photo: null, file: null, sharp: null, steps };
}

export async function share() {
  remember.cancel();
  history.replaceState(null, "", address());
  const kept = "It opens on this machine, while the server keeps the picture.";
  try {
    await navigator.clipboard.writeText(location.href);
    tell(`The link is copied. ${kept}`);
  } catch { // browsers have a clipboard for some addresses alone
    tell(`The page's address is the link. ${kept}`);
  }
}
