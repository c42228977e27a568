// Requests to the page's own server. Every failure is an Error whose message a person can read.

import { Runs } from "./runs.js";

export const model = () => json("/v1/model");
export const upload = (body) => json("/v1/pictures", { method: "POST", body });
export const example = () => json("/v1/examples", { method: "POST" });
export const read = (text) => post("/v1/read", { text });
export const words = (picture, { text, points, box }) => post("/v1/words", { picture, text, points, box });
export const pictureUrl = (id) => `/v1/pictures/${id}.jpg`;
export const drawingUrl = (id) => `/v1/pictures/${id}.png`;

// One mask, of the picture's own size.
export async function segment(picture, { text, points, box }, signal) {
  const question = { picture, prompts: [{ text, points, box }] };
  const { answers } = await post("/v1/segment", question, signal);
  return { ...answers[0], mask: new Runs(answers[0].mask) };
}

function post(path, value, signal) {
  const headers = { "Content-Type": "application/json" };
  return json(path, { method: "POST", headers, body: JSON.stringify(value), signal });
}

const json = (path, how) => call(path, how, "json");

// An answer that is read whole.
async function call(path, how, form) {
  let response, said;
  try {
    response = await fetch(path, how);
    said = await response[response.ok ? form : "text"]();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer; is it still running?");
  }
  if (response.ok) return said;
  throw Object.assign(new Error(sentence(said, response.status)), { status: response.status });
}

function sentence(said, status) {
  try {
    const text = JSON.parse(said).error;
    return text.charAt(0).toUpperCase() + text.slice(1);
  } catch {
    return status === 413 ? "The file is too large." : `The server answered ${status}.`;
  }
}

// As a file of that name; a link would fail without a word.
export async function save(url, name) {
  saveUrl(URL.createObjectURL(await call(url, {}, "blob")), name);
}

export function saveUrl(href, download) {
  Object.assign(document.createElement("a"), { href, download }).click();
  if (href.startsWith("blob:")) setTimeout(() => URL.revokeObjectURL(href), 60_000);
}

export async function image(url) {
  const found = new Image();
  found.src = url;
  try {
    await found.decode();
  } catch {
    await call(url, {}, "blob"); // which says why
    throw new Error("The server sent no picture.");
  }
  return found;
}
