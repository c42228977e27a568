// What the model knows: in general, and of the words that are being typed.

import * as api from "./api.js";
import { megabytes } from "./pictures.js";
import { at, element, later, write } from "./say.js";
import { state } from "./steps.js";

export function tellOfModel(model) {
  at("model").textContent = `${model.name} · ${model.size} px · ${model.reads ? "reads words" : "takes points"}`;
  at("largest").textContent = megabytes(model.largest);
  const also = model.needs_text ? "points and boxes refine a mask of words" : "points and boxes are enough";
  const takes = model.reads ? `It takes words; ${also}.` : "It takes points and boxes, and no words.";
  at("about").textContent = `The model is ${model.name}. ${model.trained} ${takes}`;
  const lines = [
    takes,
    model.trained,
    vocabulary(model),
    `It looks at a picture in ${model.size} × ${model.size} pixels, whatever its size.`,
    model.presence
      ? "It can say that nothing like that is there; the mask is then hidden."
      : "It cannot say that nothing like that is there: there is always a mask.",
  ];
  at("knows").replaceChildren(...lines.filter(Boolean).map((textContent) => element("li", { textContent })));
}

function vocabulary({ words, vocabulary }) {
  if (words.length) return `It knows ${words.length} words: ${words.join(", ")}. Others it spells.`;
  return vocabulary && `It spells words with ${vocabulary.toLocaleString("en")} pieces.`;
}

const list = (words) => words.map((word) => `“${word}”`).join(", ");

// In a sentence or two what a model does not read; `said` has cut, unknown and, while one types, letters.
export function unread({ cut, unknown, letters = [] }) {
  const said = [];
  if (unknown.length) said.push(`It does not know ${list(unknown)}.`);
  if (letters.length) said.push(`Of ${list(letters)} it knows the letters alone.`);
  if (cut) said.push(`It does not read “${cut}”, which is beyond its tokens.`);
  return said.join(" ");
}

// The typed text in pieces, of which some are marked: [text, whether it is][].
export function marked(text, { cut, unknown, letters }) {
  const end = cut ? text.lastIndexOf(cut) : text.length;
  const odd = [...unknown, ...letters];
  const pieces = text.slice(0, end).split(/([\p{L}\p{N}\p{M}_]+|\s+)/u).filter(Boolean);
  const found = pieces.map((piece) => [piece, odd.includes(piece)]);
  return end < text.length ? [...found, [text.slice(end), true]] : found;
}

// While one types; the newest text alone counts.
const look = later(150, async () => {
  const text = at("text").value;
  // What fails here is said when the text is asked for.
  const said = text.trim() ? await api.read(text).catch(() => null) : null;
  if (text !== at("text").value) return;
  write("typed", said ? unread(said) : "");
  at("text").setAttribute("aria-invalid", String(Boolean(at("typed").textContent)));
  at("marks").replaceChildren(...(said ? marked(text, said) : []).map(([textContent, odd]) => (
    element(odd ? "mark" : "span", { textContent })
  )));
  follow();
});

const follow = () => (at("marks").scrollLeft = at("text").scrollLeft);

export function watchTyping() {
  if (!state.model.reads) return;
  at("text").addEventListener("input", () => {
    at("marks").replaceChildren();
    look();
  });
  at("text").addEventListener("scroll", follow);
}
