// Masks as files: COCO's and SVG, with the pixels that are seen.

import { image, saveUrl } from "./api.js";
import { layer } from "./view.js";
import { attempt, complain, several, tell } from "./say.js";
import { answered, isSeen, state } from "./steps.js";

const STRIP = 256; // columns that are read at once: browsers bound the size of a canvas

// A mask picture's pixels, row by row, each 0 or 1.
export async function pixelsOf(url) {
  const mask = await image(url);
  const { naturalWidth: width, naturalHeight: height } = mask;
  const pixels = new Uint8Array(width * height);
  const pen = layer(Math.min(STRIP, width), height, { willReadFrequently: true });
  for (let left = 0; left < width; left += STRIP) {
    const columns = Math.min(STRIP, width - left);
    pen.drawImage(mask, left, 0, columns, height, 0, 0, columns, height);
    const { data } = pen.getImageData(0, 0, columns, height);
    for (let y = 0, i = 0; y < height; y++) {
      for (let x = left; x < left + columns; x++, i += 4) pixels[y * width + x] = data[i] > 127;
    }
  }
  return { pixels, width, height };
}

// COCO's run lengths: column by column, zeros first.
export function runsOf({ pixels, width, height }) {
  const counts = [];
  let [value, run] = [0, 0];
  for (let x = 0; x < width; x++) {
    for (let i = x; i < pixels.length; i += width) {
      if (pixels[i] === value) run++;
      else {
        counts.push(run);
        [value, run] = [pixels[i], 1];
      }
    }
  }
  return [...counts, run];
}

const ACROSS = [1, 0, -1, 0]; // right, down, left, up
const DOWN = [0, 1, 0, -1];

// An SVG path along the pixels' edges: what belongs lies to the right of it, holes are loops, too.
export function pathOf({ pixels, width, height }) {
  const is = (x, y) => x >= 0 && y >= 0 && x < width && y < height && pixels[y * width + x] === 1;
  const ahead = [
    (x, y) => [is(x, y - 1), is(x, y)],
    (x, y) => [is(x, y), is(x - 1, y)],
    (x, y) => [is(x - 1, y), is(x - 1, y - 1)],
    (x, y) => [is(x - 1, y - 1), is(x, y - 1)],
  ]; // of a corner, by direction: the pixels to the left and to the right
  const seen = new Uint8Array(pixels.length); // pixels whose upper edge is in a loop
  const steps = [];
  for (let start = 0; start < pixels.length; start++) {
    const [left, top] = [start % width, Math.floor(start / width)];
    if (seen[start] || !pixels[start] || is(left, top - 1)) continue;
    let [x, y, way] = [left, top, 0];
    steps.push(`M${x} ${y}`);
    do {
      let length = 0;
      let turn = 0;
      while (!turn) {
        if (way === 0) seen[y * width + x] = 1;
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

// `pictures`: { name, width, height, masks: [{ text, said, counts, width, height }] }.
export function cocoOf(pictures) {
  const names = [...new Set(pictures.flatMap(({ masks }) => masks.map(({ text }) => text ?? "object")))];
  const images = pictures.map(({ name, width, height }, i) => ({ id: i + 1, file_name: name, width, height }));
  const things = pictures.flatMap(({ masks }, i) => masks.map((mask) => ({ ...mask, image_id: i + 1 })));
  const annotations = things.map(({ text, said, image_id, width, height, counts }, i) => ({
    id: i + 1,
    image_id,
    category_id: names.indexOf(text ?? "object") + 1,
    ...(text === null ? {} : { caption: text }),
    segmentation: { size: [height, width], counts },
    area: counts.reduce((sum, run, place) => sum + (place % 2) * run, 0),
    bbox: [said.box[0], said.box[1], said.box[2] - said.box[0], said.box[3] - said.box[1]],
    iscrowd: 0,
    score: said.score,
  }));
  return { images, categories: names.map((name, i) => ({ id: i + 1, name })), annotations };
}

// What is seen of a picture and has a pixel.
const shown = (picture) => picture.steps.now.items.filter((item) => isSeen(item) && answered(item).said.box);

// One after the other: each may have as many bytes as the picture has pixels.
async function read(items, told) {
  const masks = [];
  for (const item of items) {
    const { text, said } = answered(item);
    const read = await pixelsOf(said.mask);
    masks.push({ text, said, colour: item.colour, width: read.width, height: read.height, ...told(read) });
  }
  return masks;
}

export async function saveCoco() {
  const pictures = state.pictures.filter((picture) => shown(picture).length);
  const masks = pictures.flatMap(shown).length;
  const from = `${several(masks, "mask")} of ${several(pictures.length, "picture")}`;
  await write("masks.json", "application/json", from, async () => {
    const whole = [];
    for (const picture of pictures) {
      whole.push({ ...picture, masks: await read(shown(picture), (mask) => ({ counts: runsOf(mask) })) });
    }
    return JSON.stringify(cocoOf(whole));
  });
}

export async function saveSvg() {
  const { picture } = state;
  const items = shown(picture);
  const name = picture.name.replace(/\.\w+$/, "");
  await write(`${name}.svg`, "image/svg+xml", several(items.length, "mask"), async () => {
    return svgOf(picture, await read(items, (mask) => ({ path: pathOf(mask) })));
  });
}

async function write(name, type, from, work) {
  if (from.startsWith("0")) return complain("No mask is shown; there is nothing to save.");
  const text = await attempt("Saving …", work);
  if (text === null) return;
  saveUrl(URL.createObjectURL(new Blob([text], { type })), name);
  tell(`Saved ${from}.`);
}

export function savePng(item) {
  const { text, said } = answered(item);
  const words = (text ?? "").toLowerCase().replace(/[^a-z0-9]+/g, "-").slice(0, 40).replace(/^-|-$/g, "");
  saveUrl(said.mask, `mask-${words || "points"}.png`);
  tell("Saved.");
}
