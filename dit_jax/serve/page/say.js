// What is said of what happens: a status line, a message where something failed.

export const at = (id) => document.getElementById(id);
let busy = 0;

// The work's answer; null where it failed, which is said, or was given up, which is not. A message
// that `stays` moves nothing while a word below it is being clicked.
export async function attempt(doing, work, { stays = false } = {}) {
  if (!stays) complain("");
  tell(doing);
  busy++;
  document.body.setAttribute("aria-busy", "true");
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") complain(error.message);
    return null;
  } finally {
    busy--;
    if (!busy) {
      tell("");
      document.body.removeAttribute("aria-busy");
    }
  }
}

export function complain(text) {
  write("message", text);
  at("message").hidden = !text;
  if (text) at("message").scrollIntoView({ block: "nearest" });
}

export function tell(text) {
  write("status", text);
}

// What is written again would be read out again.
export function write(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

export function element(tag, properties, ...inside) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...inside);
  return made;
}

export const several = (count, one) => `${count} ${one}${count === 1 ? "" : "s"}`;

// Once, when nothing has asked for it for so long.
export function later(milliseconds, work) {
  let timer = null;
  const run = () => {
    clearTimeout(timer);
    timer = setTimeout(work, milliseconds);
  };
  return Object.assign(run, { cancel: () => clearTimeout(timer) });
}
