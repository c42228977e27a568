// Word maps as the server sends them: bytes [layers, words, h, w], of which 255 is the layer's top.

export class Maps {
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
