// Word maps: of the word under the mouse or with the focus, else of the one that was clicked.

import * as api from "./api.js";
import { at, attempt, tell, write } from "./say.js";
import { active, answered, state } from "./steps.js";

// As the server sends them: bytes [layers, words, h, w], of which 255 is the layer's top.
class Maps {
  constructor(said) {
    Object.assign(this, said);
    this.levels = Uint8Array.from(atob(said.maps), (letter) => letter.charCodeAt(0));
    this.patches = said.grid[0] * said.grid[1];
  }

  // Layer 0 is the mean of all, layer i the i-th.
  name(layer) {
    return layer ? this.layers[layer - 1] : "mean of all layers";
  }

  // From 0 to 1, where 1 is the most that any word has in this layer.
  heat(layer, word) {
    const attention = this.words.map((_, i) => this.attention(layer, i));
    const top = Math.max(1e-9, ...attention.map((values) => Math.max(...values)));
    const { grid, content, canvas } = this;
    return { values: Array.from(attention[word], (value) => value / top), grid, content, canvas };
  }

  // Mean over the mask's pixels.
  share(layer, word) {
    const chosen = layer ? [this.shares[layer - 1]] : this.shares;
    return chosen.reduce((sum, row) => sum + row[word], 0) / chosen.length;
  }

  attention(layer, word) {
    const chosen = layer ? [layer - 1] : this.layers.map((_, i) => i);
    const mean = new Float32Array(this.patches);
    for (const i of chosen) {
      const start = (i * this.words.length + word) * this.patches;
      const scale = this.tops[i] / 255 / chosen.length;
      for (let j = 0; j < this.patches; j++) mean[j] += scale * this.levels[start + j];
    }
    return mean;
  }

  sentence(layer, word) {
    const { text, iou, read } = this.words[word];
    if (!read) return `“${text}” is beyond what the model reads.`;
    const share = `“${text}”: the mask's pixels give it ${percent(this.share(layer, word))} of their attention, ${this.name(layer)}.`;
    if (iou === null) return `${share} Without it no word is left.`;
    return `${share} Without it the mask keeps an IoU of ${Math.round(100 * iou)}.`;
  }
}

export function percent(share) {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

// What is looked at is { item, word }.
const isOf = (item, seen) => seen?.item.key === item.key;
const isWord = (seen, item, word) => isOf(item, seen) && seen.word === word;
// By which a word is found again in a list that was made anew.
export const focusOf = (seen) => seen && `${seen.item.key} word ${seen.word}`;

export function hover(item, word) {
  if (word !== null && isWord(state.hovered, item, word)) return;
  state.hovered = word === null ? null : { item, word };
  return word === null ? state.draw({ list: false }) : load(item);
}

export function pin(item, word) {
  if (isWord(state.pinned, item, word)) {
    leaveMaps();
    return state.draw({ list: false });
  }
  state.pinned = { item, word };
  at("picture").scrollIntoView({ block: "nearest" });
  return load(item);
}

export function leaveMaps() {
  state.hovered = state.pinned = null;
}

async function load(item) {
  state.draw({ list: false });
  const prompt = answered(item);
  if (!prompt || prompt.maps) return;
  const picture = state.picture.id;
  prompt.asking ??= attempt("Looking at the words …", () => api.words(picture, prompt), { stays: true });
  const said = await prompt.asking;
  prompt.asking = null;
  if (!said) {
    if (isOf(item, state.pinned)) state.pinned = null;
  } else if (!prompt.maps) {
    prompt.maps = new Maps(said);
    tell(said.remark ?? "");
  }
  state.draw({ list: false });
}

// Writes what is seen of the maps below the list; gives the heat to draw, if any.
export function drawMaps() {
  const seen = state.hovered ?? state.pinned;
  const maps = seen && answered(seen.item)?.maps;
  const refined = active();
  const shown = maps ?? (refined && answered(refined)?.maps);
  at("maps").hidden = !shown;
  at("maps").classList.toggle("pinned", Boolean(state.pinned));
  if (shown) at("layer").max = shown.layers.length;
  const layer = Number(at("layer").value);
  for (const word of document.querySelectorAll("button.word")) {
    word.setAttribute("aria-pressed", String(word.dataset.focus === focusOf(state.pinned)));
  }
  if (shown) write("layer-name", shown.name(layer));
  write("word", maps ? maps.sentence(layer, seen.word) : "Click on a word to keep its map.");
  return maps ? maps.heat(layer, seen.word) : null;
}
