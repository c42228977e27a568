// The list of masks: what was asked, what came out, and what can be done with it.

import { savePng } from "./files.js";
import { unread } from "./known.js";
import { focusOf, hover, percent, pin } from "./maps.js";
import { choose, drop, hide, takeBack } from "./masks.js";
import { element, several } from "./say.js";
import { answered, isHidden, named } from "./steps.js";

// Of a predicted IoU; docs/see.md says how often `mini` is right in each.
const SURE = [[0.7, "Sure"], [0.5, "Fairly sure"], [-Infinity, "Unsure"]];
const MEANING = {
  predicted_iou: "How well the model expects its mask to fit, from 0 to 1",
  confidence: "The mean probability of the mask's pixels, from 0 to 1",
};

// The newest first.
export function listed(items, active) {
  return items.map((item) => entry(item, item === active)).reverse();
}

function entry(item, active) {
  const line = element("li", { className: active ? "active" : "" });
  line.classList.toggle("unseen", isHidden(item));
  line.style.setProperty("--colour", `rgb(${item.colour.join(",")})`);
  const prompt = answered(item);
  line.append(words(item), figures(item, prompt));
  const left = prompt && unread(prompt.said);
  if (left) line.append(element("p", { className: "unread", textContent: left }));
  line.append(buttons(item, prompt, active));
  return line;
}

function words(item) {
  const line = element("p", { className: "words" });
  const { text } = item.prompt;
  if (text === null) {
    line.append(element("span", { className: "word", textContent: named(item) }));
    return line;
  }
  text.split(/\s+/).filter(Boolean).forEach((textContent, i) => {
    const word = element("button", { type: "button", className: "word", textContent });
    word.title = "Where the mask's pixels attend to this word; a click keeps it";
    word.dataset.focus = focusOf({ item, word: i });
    // A word that slides under a mouse at rest is not looked at: browsers tell of that, too.
    word.addEventListener("mousemove", (event) => {
      if (event.movementX || event.movementY) hover(item, i);
    });
    word.addEventListener("mouseleave", () => hover(item, null));
    word.addEventListener("focus", () => hover(item, i));
    word.addEventListener("blur", () => hover(item, null));
    word.addEventListener("click", () => pin(item, i));
    line.append(i ? " " : "", word); // blanks for who copies the words
  });
  return line;
}

function figures(item, prompt) {
  const line = element("p", { className: "figures" });
  if (!prompt) {
    line.textContent = item.prompt.stop ? "Looking …" : "Click on the picture, or draw a box.";
    return line;
  }
  const { said } = prompt;
  const told = [said.share ? `${percent(said.share)} of the picture` : "no pixel"];
  const { points, box } = item.prompt;
  if (box) told.push("a box");
  const against = points.filter(([, , label]) => !label).length;
  if (points.length) told.push(`${several(points.length, "point")}, ${against} of them against`);
  line.append(element("strong", { textContent: verdict(said) }), ` · ${told.join(" · ")}`);
  line.title = `${MEANING[said.score_kind]}: ${said.score.toFixed(2)}`;
  if (said.presence !== null) line.title += `. That anything is meant: ${percent(said.presence)}`;
  return line;
}

export function verdict({ nothing, presence, score, score_kind }) {
  if (nothing) return `Nothing like that here (${percent(1 - presence)})`;
  const number = score.toFixed(2);
  if (score_kind === "confidence") return `Confidence ${number}`;
  return `${SURE.find(([least]) => score >= least)[1]} (${number})`;
}

function buttons(item, prompt, active) {
  const line = element("div", { className: "acts" });
  const { points, box } = item.prompt;
  const add = (textContent, act) => {
    const button = element("button", { type: "button", textContent });
    button.setAttribute("aria-label", `${textContent}: ${named(item)}`);
    button.dataset.focus = `${item.key} ${act.name}`;
    button.addEventListener("click", () => act(item));
    line.append(button);
    return button;
  };
  add(active ? "Refining" : "Refine", choose).setAttribute("aria-pressed", String(active));
  if (points.length || box) add(points.length ? "Undo point" : "Undo box", takeBack);
  if (prompt) {
    add(isHidden(item) ? "Show" : "Hide", hide);
    add("Download", savePng);
  }
  add("Delete", drop);
  return line;
}
