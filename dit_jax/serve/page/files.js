// Masks as files: PNG, COCO's and SVG, with the pixels that are seen.

import { saveUrl } from "./api.js";
import { attempt, complain, several, tell } from "./say.js";
import { answered, isSeen, state } from "./steps.js";

const ROWS = 64; // of a PNG, made at once
const ACROSS = [1, 0, -1, 0]; // right, down, left, up
const DOWN = [0, 1, 0, -1];

// An SVG path along the pixels' edges: what belongs lies to the right of it, holes are loops, too.
export function pathOf(mask) {
  const is = (x, y) => mask.has(x, y);
  const ahead = [
    (x, y) => [is(x, y - 1), is(x, y)],
    (x, y) => [is(x, y), is(x - 1, y)],
    (x, y) => [is(x - 1, y), is(x - 1, y - 1)],
    (x, y) => [is(x - 1, y - 1), is(x, y - 1)],
  ]; // of a corner, by direction: the pixels to the left and to the right
  const seen = new Set(); // pixels whose upper edge is in a loop
  const steps = [];
  for (const [left, top] of mask.tops()) {
    if (seen.has(top * mask.width + left)) continue;
    let [x, y, way] = [left, top, 0];
    steps.push(`M${x} ${y}`);
    do {
      let length = 0;
      let turn = 0;
      while (!turn) {
        if (way === 0) seen.add(y * mask.width + x);
        x += ACROSS[way];
        y += DOWN[way];
        length++;
        const [other, same] = ahead[way](x, y);
        turn = same ? (other ? -1 : 0) : 1;
      }
      steps.push(`${way % 2 ? "v" : "h"}${(way < 2 ? 1 : -1) * length}`);
      way = (way + turn + 4) % 4;
    } while (x !== left || y !== top || way !== 0);
    steps.push("z");
  }
  return steps.join("");
}

// A PNG of 0 and 255, of which no more than some rows lie in memory at once.
export async function pngOf(mask) {
  const packer = new CompressionStream("deflate");
  const packed = new Response(packer.readable).arrayBuffer();
  const writer = packer.writable.getWriter();
  for (let top = 0; top < mask.height; top += ROWS) {
    // Before each row stands its filter, 0: none.
    await writer.write(mask.rows(top, Math.min(ROWS, mask.height - top), { value: 255, stride: mask.width + 1 }));
  }
  await writer.close();
  const head = new DataView(new ArrayBuffer(13));
  head.setUint32(0, mask.width);
  head.setUint32(4, mask.height);
  head.setUint8(8, 8); // bits, of grey; the rest is 0
  const chunks = [chunk("IHDR", head.buffer), chunk("IDAT", await packed), chunk("IEND", new ArrayBuffer(0))];
  return new Blob([Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), ...chunks]);
}

function chunk(name, data) {
  const bytes = new Uint8Array(12 + data.byteLength);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.byteLength);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(new Uint8Array(data), 8);
  view.setUint32(8 + data.byteLength, crc(bytes.subarray(4, 8 + data.byteLength)));
  return bytes;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

// Of a chunk, as PNG asks for it.
function crc(bytes) {
  let sum = -1;
  for (const byte of bytes) sum = TABLE[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ -1) >>> 0;
}

// As the page's masks go on the drawing: half transparent over whatever it is put on.
export function svgOf({ width, height }, masks) {
  const paths = masks.map(({ text, colour, path }) => (
    `<path fill="rgb(${colour})" d="${path}"><title>${escaped(text ?? "object")}</title></path>`
  ));
  const size = `width="${width}" height="${height}" viewBox="0 0 ${width} ${height}"`;
  const how = 'fill-opacity="0.5" fill-rule="evenodd" shape-rendering="crispEdges"';
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} ${how}>\n${paths.join("\n")}\n</svg>\n`;
}

function escaped(text) {
  const named = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
  return text.replace(/[&<>]/g, (one) => named[one]).replace(/[^\P{C}\n\t]/gu, "");
}

// `pictures`: { name, width, height, masks: [{ text, said }] }.
export function cocoOf(pictures) {
  const names = [...new Set(pictures.flatMap(({ masks }) => masks.map(({ text }) => text ?? "object")))];
  const images = pictures.map(({ name, width, height }, i) => ({ id: i + 1, file_name: name, width, height }));
  const things = pictures.flatMap(({ masks }, i) => masks.map((mask) => ({ ...mask, image_id: i + 1 })));
  const annotations = things.map(({ text, said: { mask, box, score }, image_id }, i) => ({
    id: i + 1,
    image_id,
    category_id: names.indexOf(text ?? "object") + 1,
    ...(text === null ? {} : { caption: text }),
    segmentation: { size: [mask.height, mask.width], counts: mask.counts },
    area: mask.counts.reduce((sum, run, place) => sum + (place % 2) * run, 0),
    bbox: [box[0], box[1], box[2] - box[0], box[3] - box[1]],
    iscrowd: 0,
    score,
  }));
  return { images, categories: names.map((name, i) => ({ id: i + 1, name })), annotations };
}

// What is seen of a picture and has a pixel.
const shown = (picture) => picture.steps.now.items.filter((item) => isSeen(item) && answered(item).said.box);

export async function saveCoco() {
  const pictures = state.pictures.filter((picture) => shown(picture).length);
  const masks = pictures.flatMap(shown).length;
  const from = `${several(masks, "mask")} of ${several(pictures.length, "picture")}`;
  const whole = pictures.map((picture) => ({ ...picture, masks: shown(picture).map(answered) }));
  await save("masks.json", "application/json", from, () => JSON.stringify(cocoOf(whole)));
}

export async function saveSvg() {
  const { picture } = state;
  const items = shown(picture);
  await save(`${picture.name.replace(/\.\w+$/, "")}.svg`, "image/svg+xml", several(items.length, "mask"), () => {
    const paths = items.map((item) => {
      const { text, said } = answered(item);
      return { text, colour: item.colour, path: pathOf(said.mask) };
    });
    return svgOf(picture, paths);
  });
}

export function savePng(item) {
  const { text, said } = answered(item);
  const words = (text ?? "").toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 40).replace(/^-|-$/g, "");
  return save(`mask-${words || "points"}.png`, "image/png", "1 mask", () => pngOf(said.mask));
}

async function save(name, type, from, work) {
  if (from.startsWith("0")) return complain("No mask is shown; there is nothing to save.");
  const made = await attempt("Saving …", async () => new Blob([await work()], { type }));
  if (made === null) return;
  saveUrl(URL.createObjectURL(made), name);
  tell(`Saved ${from}.`);
}
