// The picture, masks, points, word maps and the keyboard's cross, on one canvas.

const TINT = 120; // alpha of a mask, of 255
const DARK = "rgba(0, 0, 0, 0.4)"; // over what no mask covers
const POINT = 7; // pixels of the canvas

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.cross = null; // [x, y] in pixels of the picture, while the keyboard points
  }

  show(photo, picture) {
    [this.canvas.width, this.canvas.height] = picture.view;
    [this.photo, this.picture, this.cross] = [photo, picture, null];
    this.canvas.hidden = false;
  }

  // Where an event points, in pixels of the picture: (0, 0) is the middle of the first one.
  place(event) {
    const box = this.canvas.getBoundingClientRect();
    const share = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return this.within([share[0] * this.picture.width - 0.5, share[1] * this.picture.height - 0.5]);
  }

  within([x, y]) {
    const clamp = (value, most) => Math.min(Math.max(value, 0), most);
    return [clamp(x, this.picture.width - 1), clamp(y, this.picture.height - 1)];
  }

  moveCross(right, down) {
    const { width, height } = this.picture;
    const step = Math.max(width, height) / 50;
    const [x, y] = this.cross ?? [width / 2, height / 2];
    this.cross = this.within([x + right * step, y + down * step]);
  }

  draw({ items, active, heat }) {
    const { context: pen, canvas } = this;
    pen.drawImage(this.photo, 0, 0, canvas.width, canvas.height);
    if (heat) this.drawHeat(heat);
    else this.drawMasks(items.filter((item) => item.mask));
    for (const [x, y, label] of active?.points ?? []) this.drawPoint(x, y, label);
    if (this.cross) this.drawCross(...this.cross);
  }

  drawMasks(items) {
    if (!items.length) return;
    const { context: pen, canvas } = this;
    const lit = layer(canvas.width, canvas.height);
    for (const item of items) lit.drawImage(item.mask.solid, 0, 0);
    lit.globalCompositeOperation = "source-in";
    lit.drawImage(this.photo, 0, 0, canvas.width, canvas.height);
    pen.fillStyle = DARK;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.drawImage(lit.canvas, 0, 0);
    for (const item of items) pen.drawImage(item.mask.tinted, 0, 0);
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
    const { context: pen } = this;
    pen.beginPath();
    pen.arc(column, row, POINT, 0, 2 * Math.PI);
    pen.fillStyle = label ? "#ffffff" : "#111111";
    pen.strokeStyle = label ? "#111111" : "#ffffff";
    pen.lineWidth = 2;
    pen.fill();
    pen.stroke();
    pen.beginPath(); // a plus or a minus: not by colour alone
    pen.moveTo(column - 4, row);
    pen.lineTo(column + 4, row);
    if (label) {
      pen.moveTo(column, row - 4);
      pen.lineTo(column, row + 4);
    }
    pen.stroke();
  }

  drawCross(x, y) {
    const [column, row] = this.onCanvas(x, y);
    const { context: pen } = this;
    for (const [colour, width] of [["#000000", 4], ["#ffffff", 2]]) {
      pen.beginPath();
      pen.moveTo(column - 14, row);
      pen.lineTo(column + 14, row);
      pen.moveTo(column, row - 14);
      pen.lineTo(column, row + 14);
      pen.strokeStyle = colour;
      pen.lineWidth = width;
      pen.stroke();
    }
  }

  onCanvas(x, y) {
    const { width, height } = this.picture;
    return [((x + 0.5) * this.canvas.width) / width, ((y + 0.5) * this.canvas.height) / height];
  }
}

// A mask picture as two canvases of the size that is shown: all of it, and tinted with an outline.
export function tinted(mask, [red, green, blue], [width, height]) {
  const pen = layer(width, height);
  pen.drawImage(mask, 0, 0, width, height);
  const pixels = pen.getImageData(0, 0, width, height);
  const inside = Uint8Array.from({ length: width * height }, (_, i) => pixels.data[4 * i] > 127);
  const solid = pen.createImageData(width, height);
  const tint = pen.createImageData(width, height);
  for (let i = 0; i < inside.length; i++) {
    if (!inside[i]) continue;
    const x = i % width;
    const deep =
      x > 1 && x < width - 2 && inside[i - 2] && inside[i + 2] &&
      inside[i - 2 * width] && inside[i + 2 * width];
    solid.data.set([255, 255, 255, 255], 4 * i);
    tint.data.set([red, green, blue, deep ? TINT : 255], 4 * i);
  }
  return { solid: painted(solid), tinted: painted(tint) };
}

function painted(pixels) {
  const pen = layer(pixels.width, pixels.height);
  pen.putImageData(pixels, 0, 0);
  return pen.canvas;
}

function layer(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  return canvas.getContext("2d");
}
