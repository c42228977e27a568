// The list of masks: what was asked, what came out, and what can be done with it.

import { maskUrl } from "./api.js";
import { percent } from "./maps.js";

// `acts`: choose, drop, undo, hover(item, word or null).
export function listed(items, active, acts) {
  return items.map((item) => entry(item, item === active, acts));
}

function entry(item, active, acts) {
  const line = element("li", { className: active ? "active" : "" });
  line.style.setProperty("--colour", `rgb(${item.colour.join(",")})`);
  line.append(words(item, acts), figures(item), ...unread(item), buttons(item, active, acts));
  return line;
}

function words(item, acts) {
  const line = element("p", { className: "words" });
  if (item.text === null) {
    line.append(element("span", { className: "word", textContent: "what you point at" }));
    return line;
  }
  item.text.split(/\s+/).filter(Boolean).forEach((text, i) => {
    const word = element("button", { type: "button", className: "word", textContent: text });
    word.title = "Where the mask's pixels attend to this word";
    word.dataset.focus = `${item.key} word ${i}`;
    word.addEventListener("mouseenter", () => acts.hover(item, i));
    word.addEventListener("mouseleave", () => acts.hover(item, null));
    word.addEventListener("focus", () => acts.hover(item, i));
    word.addEventListener("blur", () => acts.hover(item, null));
    line.append(word);
  });
  return line;
}

function figures(item) {
  const line = element("p", { className: "figures" });
  const { answer, points } = item;
  if (!answer) {
    line.textContent = "Looking …";
    return line;
  }
  const said = [answer.share ? `${percent(answer.share)} of the picture` : "no pixel"];
  if (answer.presence !== null) said.push(`${percent(answer.presence)} sure that it is there`);
  if (answer.nothing) said.push("so: nothing is meant");
  if (answer.score !== null) said.push(`score ${answer.score.toFixed(2)}`);
  const against = points.filter(([, , label]) => !label).length;
  if (points.length) said.push(`${points.length} point${points.length > 1 ? "s" : ""}, ${against} of them against`);
  line.textContent = said.join(" · ");
  line.title = "The score is the IoU that the decoder expects of its mask; DIT does not train it.";
  return line;
}

// What the model does not read of the words.
function unread({ answer }) {
  const said = [];
  if (answer?.unknown.length) said.push(`It does not know ${answer.unknown.map((word) => `“${word}”`).join(", ")}.`);
  if (answer?.cut) said.push(`It reads too few words for “${answer.cut}”.`);
  return said.length ? [element("p", { className: "figures unread", textContent: said.join(" ") })] : [];
}

function buttons(item, active, acts) {
  const line = element("div", { className: "acts" });
  const name = item.text ?? "what you point at";
  const add = (text, label, act, more = {}) => {
    const button = element("button", { type: "button", textContent: text, ...more });
    button.setAttribute("aria-label", `${label}: ${name}`);
    button.dataset.focus = `${item.key} ${text}`;
    button.addEventListener("click", act);
    line.append(button);
    return button;
  };
  const refine = add(active ? "Refining" : "Refine", "Refine by points", () => acts.choose(item));
  refine.setAttribute("aria-pressed", String(active));
  if (item.points.length) add("Undo point", "Take the last point back", () => acts.undo(item));
  if (item.answer) {
    const link = element("a", { className: "button", textContent: "Download", href: maskUrl(item.answer.id) });
    link.setAttribute("aria-label", `Download the mask: ${name}`);
    link.setAttribute("download", "");
    line.append(link);
  }
  add("Delete", "Delete", () => acts.drop(item));
  return line;
}

function element(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}
