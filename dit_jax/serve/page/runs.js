// A mask as the server sends it, COCO's run lengths: column by column, zeros first. Nothing here
// takes memory for each of its pixels, of which a photograph may have fifty millions.

const LETTER = 48; // of six bits: five of a number, the lowest first, and whether more follow

export class Runs {
  constructor({ size: [height, width], counts }) {
    Object.assign(this, { width, height, counts: unpacked(counts) });
    const edges = []; // rows where runs of ones begin and end, alternately, within their column
    const first = new Uint32Array(width + 1); // of a column's edges
    let column = 0;
    let row = 0;
    const ended = () => {
      first[++column] = edges.length;
      row = 0;
    };
    this.counts.forEach((count, i) => {
      for (let left = count; left > 0;) {
        const length = Math.min(left, height - row);
        if (i % 2) edges.push(row, row + length);
        row += length;
        left -= length;
        if (row === height) ended();
      }
    });
    Object.assign(this, { edges: Uint32Array.from(edges), first });
  }

  // Where a run of ones begins, [x, y].
  *tops() {
    for (let x = 0; x < this.width; x++) {
      for (let i = this.first[x]; i < this.first[x + 1]; i += 2) yield [x, this.edges[i]];
    }
  }

  has(x, y) {
    if (x < 0 || x >= this.width) return false;
    let [low, high] = [this.first[x], this.first[x + 1]];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.edges[middle] <= y) low = middle + 1;
      else high = middle;
    }
    return (low - this.first[x]) % 2 === 1;
  }

  // The pixels, each 0 or `value`, of the rows from `top` on, row by row; a line of pixels may be
  // longer than the mask is wide, whose first columns it then leaves.
  rows(top, count, { value = 1, stride = this.width } = {}) {
    const pixels = new Uint8Array(count * stride);
    for (let x = 0; x < this.width; x++) {
      const at = stride - this.width + x;
      for (let i = this.first[x]; i < this.first[x + 1]; i += 2) {
        const end = Math.min(count, this.edges[i + 1] - top);
        for (let y = Math.max(0, this.edges[i] - top); y < end; y++) pixels[y * stride + at] = value;
      }
    }
    return pixels;
  }

  // In another size, each pixel that of the place in its middle.
  sampled(width, height) {
    const pixels = new Uint8Array(width * height);
    const nearest = (edge) => Math.ceil((edge * height) / this.height - 0.5);
    for (let x = 0; x < width; x++) {
      const column = Math.floor(((x + 0.5) * this.width) / width);
      for (let i = this.first[column]; i < this.first[column + 1]; i += 2) {
        const end = nearest(this.edges[i + 1]);
        for (let y = nearest(this.edges[i]); y < end; y++) pixels[y * width + x] = 1;
      }
    }
    return pixels;
  }
}

function unpacked(text) {
  const counts = [];
  for (let i = 0; i < text.length;) {
    let [number, shift, more] = [0, 0, true];
    while (more) {
      const bits = text.charCodeAt(i++) - LETTER;
      number |= (bits & 31) << shift;
      shift += 5;
      more = bits & 32;
      if (!more && bits & 16) number |= -1 << shift;
    }
    counts.push(number + (counts.length > 2 ? counts.at(-2) : 0));
  }
  return counts;
}
