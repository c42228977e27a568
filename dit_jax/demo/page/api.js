// Requests to the demo's own server. Every failure is an Error whose message a person can read.

export const model = () => call("/api/model");
export const upload = (blob) => call("/api/pictures", { method: "POST", body: blob });
export const example = () => call("/api/examples", { method: "POST" });
export const segment = (question) => post("/api/segment", question);
export const words = (answer) => post("/api/words", { answer });
export const pictureUrl = (id) => `/api/pictures/${id}.jpg`;
export const maskUrl = (id) => `/api/answers/${id}/mask.png`;

function post(path, value) {
  const headers = { "Content-Type": "application/json" };
  return call(path, { method: "POST", headers, body: JSON.stringify(value) });
}

async function call(path, how) {
  let response;
  try {
    response = await fetch(path, how);
  } catch {
    throw new Error("The demo does not answer; is it still running?");
  }
  let said = null;
  try {
    said = await response.json();
  } catch {
    if (response.status === 413) throw new Error("The file is too large.");
  }
  if (response.ok && said) return said;
  throw new Error(sentence(said?.error ?? `The demo answered ${response.status}.`));
}

function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export async function image(url) {
  const found = new Image();
  found.src = url;
  await found.decode();
  return found;
}
