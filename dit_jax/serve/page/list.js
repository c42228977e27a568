// The list of masks: what was asked, what came out, and what can be done with it.

import { percent } from "./maps.js";

const SCORES = {
  predicted_iou: { name: "predicted IoU", meaning: "How well the model expects its mask to fit, from 0 to 1." },
  confidence: { name: "confidence", meaning: "The mean probability of the mask's pixels, from 0 to 1." },
};

// The newest first. `acts`: choose, drop, undo, download, hover(item, word or null), pin(item, word).
export function listed(items, active, acts) {
  return items.map((item) => entry(item, item === active, acts)).reverse();
}

// By which a word is found again in a list that was made anew.
export function focusOf(seen) {
  return seen && `${seen.item.key} word ${seen.word}`;
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
    word.title = "Where the mask's pixels attend to this word; a click keeps it";
    word.dataset.focus = focusOf({ item, word: i });
    // A word that slides under a mouse at rest is not looked at: browsers tell of that, too.
    word.addEventListener("mousemove", (event) => {
      if (event.movementX || event.movementY) acts.hover(item, i);
    });
    word.addEventListener("mouseleave", () => acts.hover(item, null));
    word.addEventListener("focus", () => acts.hover(item, i));
    word.addEventListener("blur", () => acts.hover(item, null));
    word.addEventListener("click", () => acts.pin(item, i));
    line.append(i ? " " : "", word); // blanks for who copies the words
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
  const score = SCORES[answer.score_kind];
  said.push(`${score.name} ${answer.score.toFixed(2)}`);
  const against = points.filter(([, , label]) => !label).length;
  if (points.length) said.push(`${points.length} point${points.length > 1 ? "s" : ""}, ${against} of them against`);
  line.textContent = said.join(" · ");
  line.title = score.meaning;
  return line;
}

// What the model does not read of the words.
function unread({ answer }) {
  const said = [];
  if (answer?.unknown.length) said.push(`It does not know ${answer.unknown.map((word) => `“${word}”`).join(", ")}.`);
  if (answer?.cut) said.push(`It does not read “${answer.cut}”, which is beyond its tokens.`);
  return said.length ? [element("p", { className: "unread", textContent: said.join(" ") })] : [];
}

function buttons(item, active, acts) {
  const line = element("div", { className: "acts" });
  const name = item.text ?? "what you point at";
  const add = (text, label, act) => {
    const button = element("button", { type: "button", textContent: text });
    button.setAttribute("aria-label", `${label}: ${name}`);
    button.dataset.focus = `${item.key} ${text}`;
    button.addEventListener("click", act);
    line.append(button);
    return button;
  };
  const refine = add(active ? "Refining" : "Refine", "Refine by points", () => acts.choose(item));
  refine.setAttribute("aria-pressed", String(active));
  if (item.points.length) add("Undo point", "Take the last point back", () => acts.undo(item));
  if (item.answer) add("Download", "Download the mask", () => acts.download(item));
  add("Delete", "Delete", () => acts.drop(item));
  return line;
}

function element(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}
