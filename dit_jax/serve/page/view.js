// The picture, masks, prompts, word maps and the keyboard's cross, on one canvas, as near as one likes.

const DARK = 0.85; // of the opacity: over what no mask covers
const POINT = 7; // pixels of the screen
const NEAR = 32; // pixels of the canvas that a pixel of the picture is enlarged to at most
const NEAREST = 40; // times

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.opacity = 0.47;
    this.cross = null; // [x, y] in pixels of the picture, while the keyboard points
    this.box = null; // [x0, y0, x1, y1], while it is drawn
    this.whole();
  }

  show(photo, picture) {
    [this.canvas.width, this.canvas.height] = picture.view;
    [this.photo, this.picture, this.cross, this.box] = [photo, picture, null, null];
    this.canvas.hidden = false;
    this.whole();
  }

  // Near and far

  whole() {
    [this.zoom, this.left, this.top] = [1, 0, 0]; // the corner in shares of the picture
  }

  get most() {
    return Math.min(NEAREST, Math.max(4, (NEAR * this.picture.width) / this.canvas.width));
  }

  // `at`: shares of the canvas; what is there stays there.
  nearer(times, [across, down] = [0.5, 0.5]) {
    const zoom = clamp(this.zoom * times, 1, this.most);
    const change = 1 / this.zoom - 1 / zoom;
    [this.left, this.top, this.zoom] = [this.left + across * change, this.top + down * change, zoom];
    this.move(0, 0);
  }

  // By shares of the canvas.
  move(right, down) {
    const most = 1 - 1 / this.zoom;
    this.left = clamp(this.left + right / this.zoom, 0, most);
    this.top = clamp(this.top + down / this.zoom, 0, most);
  }

  // Where an event points, in shares of the canvas.
  share({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return [(clientX - box.left) / box.width, (clientY - box.top) / box.height];
  }

  // The same in pixels of the picture: (0, 0) is the middle of the first one.
  place(event) {
    const [across, down] = this.share(event);
    const x = (this.left + across / this.zoom) * this.picture.width - 0.5;
    const y = (this.top + down / this.zoom) * this.picture.height - 0.5;
    return this.within([x, y]);
  }

  within([x, y]) {
    const rounded = (value, most) => Math.round(100 * clamp(value, 0, most)) / 100;
    return [rounded(x, this.picture.width - 1), rounded(y, this.picture.height - 1)];
  }

  moveCross(right, down) {
    const { width, height } = this.picture;
    const step = Math.max(width, height) / 50 / this.zoom;
    const middle = 0.5 / this.zoom;
    const [x, y] = this.cross ?? [(this.left + middle) * width - 0.5, (this.top + middle) * height - 0.5];
    this.cross = this.within([x + right * step, y + down * step]);
    const [column, row] = this.onCanvas(...this.cross);
    const out = (value, side) => Math.min(0, value / side - 0.1) + Math.max(0, value / side - 0.9);
    this.move(out(column, this.canvas.width), out(row, this.canvas.height));
  }

  onCanvas(x, y) {
    const { width, height } = this.picture;
    const column = ((x + 0.5) / width - this.left) * this.zoom * this.canvas.width;
    return [column, ((y + 0.5) / height - this.top) * this.zoom * this.canvas.height];
  }

  // Drawing

  draw({ items, prompt, heat }) {
    const { context: pen, canvas } = this;
    this.unit = Math.max(1, canvas.width / (canvas.clientWidth || canvas.width)); // a pixel of the screen
    this.aim(pen);
    pen.drawImage(this.photo, 0, 0, canvas.width, canvas.height);
    if (heat) this.drawHeat(heat);
    else if (items.length) this.drawMasks(items);
    pen.setTransform(1, 0, 0, 1, 0, 0);
    if (prompt?.box) this.drawBox(prompt.box);
    for (const [x, y, label] of prompt?.points ?? []) this.drawPoint(x, y, label);
    if (this.box) this.drawBox(this.box);
    if (this.cross) this.drawCross(...this.cross);
  }

  aim(pen) {
    const { zoom, left, top, canvas } = this;
    pen.setTransform(zoom, 0, 0, zoom, -left * zoom * canvas.width, -top * zoom * canvas.height);
  }

  // `items`: { mask, colour }.
  drawMasks(items) {
    const { context: pen, canvas, opacity } = this;
    const lit = layer(canvas.width, canvas.height);
    this.aim(lit);
    for (const { fill } of items) lit.drawImage(fill, 0, 0);
    lit.globalCompositeOperation = "source-in";
    lit.drawImage(this.photo, 0, 0, canvas.width, canvas.height);
    pen.fillStyle = `rgba(0, 0, 0, ${DARK * opacity})`;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.save();
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.drawImage(lit.canvas, 0, 0);
    pen.restore();
    for (const { fill, edge } of items) {
      pen.globalAlpha = opacity;
      pen.drawImage(fill, 0, 0);
      pen.globalAlpha = 1;
      pen.drawImage(edge, 0, 0);
    }
  }

  // `heat`: values of patches from 0 to 1, and where the picture lies on the model's canvas.
  drawHeat({ values, grid, content, canvas: side }) {
    const { context: pen, canvas } = this;
    const [rows, columns] = grid;
    const small = layer(columns, rows);
    const pixels = small.createImageData(columns, rows);
    values.forEach((value, i) => {
      pixels.data.set([255, 60 + 180 * value, 30 + 90 * value * value, 235 * value], 4 * i);
    });
    small.putImageData(pixels, 0, 0);
    pen.fillStyle = "rgba(0, 0, 0, 0.62)";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    const [top, left, height, width] = content.map((value, i) => (value * (i % 2 ? columns : rows)) / side);
    pen.imageSmoothingEnabled = true;
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small.canvas, left, top, width, height, 0, 0, canvas.width, canvas.height);
  }

  drawPoint(x, y, label) {
    const [column, row] = this.onCanvas(x, y);
    const { context: pen, unit } = this;
    pen.beginPath();
    pen.arc(column, row, POINT * unit, 0, 2 * Math.PI);
    pen.fillStyle = label ? "#ffffff" : "#111111";
    pen.strokeStyle = label ? "#111111" : "#ffffff";
    pen.lineWidth = 2 * unit;
    pen.fill();
    pen.stroke();
    pen.beginPath(); // a plus or a minus: not by colour alone
    pen.moveTo(column - 4 * unit, row);
    pen.lineTo(column + 4 * unit, row);
    if (label) {
      pen.moveTo(column, row - 4 * unit);
      pen.lineTo(column, row + 4 * unit);
    }
    pen.stroke();
  }

  drawBox([x0, y0, x1, y1]) {
    const [left, top] = this.onCanvas(x0, y0);
    const [right, bottom] = this.onCanvas(x1, y1);
    this.twice((pen) => pen.rect(left, top, right - left, bottom - top), [5, 4]);
  }

  drawCross(x, y) {
    const [column, row] = this.onCanvas(x, y);
    const arm = 14 * this.unit;
    this.twice((pen) => {
      pen.moveTo(column - arm, row);
      pen.lineTo(column + arm, row);
      pen.moveTo(column, row - arm);
      pen.lineTo(column, row + arm);
    });
  }

  // Dark, then light within, so that it is seen on any ground.
  twice(path, dashes = []) {
    const { context: pen, unit } = this;
    for (const [colour, width, dash] of [["#000000", 4, []], ["#ffffff", 2, dashes]]) {
      pen.beginPath();
      path(pen);
      pen.setLineDash(dash.map((value) => value * unit));
      pen.strokeStyle = colour;
      pen.lineWidth = width * unit;
      pen.stroke();
    }
    pen.setLineDash([]);
  }
}

// A mask as two canvases of the size that is shown: all of it, and its outline.
export function tinted(mask, colour, [width, height]) {
  const belongs = width > mask.width ? smooth(mask, width, height) : mask.sampled(width, height);
  const [fill, edge] = [new ImageData(width, height), new ImageData(width, height)];
  const [whole, around] = [fill, edge].map((pixels) => new Uint32Array(pixels.data.buffer));
  const [tint] = new Uint32Array(Uint8Array.of(...colour, 255).buffer);
  for (let i = 0; i < whole.length; i++) if (belongs[i]) whole[i] = tint;
  for (let i = 0; i < whole.length; i++) {
    const x = i % width;
    const deep =
      x > 1 && x < width - 2 && whole[i - 2] && whole[i + 2] &&
      whole[i - 2 * width] && whole[i + 2 * width];
    if (whole[i] && !deep) around[i] = tint;
  }
  return { fill: painted(fill), edge: painted(edge) };
}

// Enlarged, with round steps.
function smooth(mask, width, height) {
  const small = new ImageData(mask.width, mask.height);
  mask.sampled(mask.width, mask.height).forEach((one, i) => (small.data[4 * i + 3] = 255 * one));
  const pen = layer(width, height, { willReadFrequently: true });
  pen.filter = `blur(${width / mask.width / 2}px)`;
  pen.drawImage(painted(small), 0, 0, width, height);
  const { data } = pen.getImageData(0, 0, width, height);
  return Uint8Array.from({ length: width * height }, (_, i) => data[4 * i + 3] > 127);
}

function painted(pixels) {
  const pen = layer(pixels.width, pixels.height);
  pen.putImageData(pixels, 0, 0);
  return pen.canvas;
}

export function layer(width, height, how = {}) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas.getContext("2d", how);
}

const clamp = (value, least, most) => Math.min(Math.max(value, least), most);
