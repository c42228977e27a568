// Requests to the demo's own server. Every failure is an Error whose message a person can read.

export const model = () => json("/api/model");
export const upload = (blob) => json("/api/pictures", { method: "POST", body: blob });
export const example = () => json("/api/examples", { method: "POST" });
export const segment = (question) => post("/api/segment", question);
export const words = (answer) => post("/api/words", { answer });
export const pictureUrl = (id) => `/api/pictures/${id}.jpg`;
export const drawingUrl = (id) => `/api/pictures/${id}.png`;
export const maskUrl = (id) => `/api/answers/${id}/mask.png`;

function post(path, value) {
  const headers = { "Content-Type": "application/json" };
  return json(path, { method: "POST", headers, body: JSON.stringify(value) });
}

const json = async (path, how) => (await call(path, how, "json")).said;

// An answer that is read whole; `gone` tells the error of what the server has not kept.
async function call(path, how, form) {
  let response, said;
  try {
    response = await fetch(path, how);
    said = await response[response.ok ? form : "text"]();
  } catch {
    throw new Error("The demo does not answer; is it still running?");
  }
  if (response.ok) return { response, said };
  throw Object.assign(new Error(sentence(said, response.status)), { gone: response.status === 404 });
}

function sentence(said, status) {
  try {
    const text = JSON.parse(said).error;
    return text.charAt(0).toUpperCase() + text.slice(1);
  } catch {
    return status === 413 ? "The file is too large." : `The demo answered ${status}.`;
  }
}

// As a file, under the name that the server gives it; a link would fail without a word.
export async function save(url) {
  const { response, said } = await call(url, {}, "blob");
  const named = /filename="([^"]*)"/.exec(response.headers.get("Content-Disposition"));
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(said), download: named[1] });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export async function image(url) {
  const found = new Image();
  found.src = url;
  try {
    await found.decode();
  } catch {
    throw new Error("The demo sent no picture; is it still running?");
  }
  return found;
}
