// What mouse, pen, fingers and keys do on the picture.

import { box, hide, point, takeBack } from "./masks.js";
import { another, sharpen } from "./pictures.js";
import { at, later } from "./say.js";
import { active, state } from "./steps.js";

const SLIP = 5; // pixels of the screen that a click may wander
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const LINE = 16; // pixels, where a wheel counts lines

export function watch(view) {
  const { canvas } = view;
  const down = new Map(); // pointer → its last event
  let start = null; // the first pointer's event, and what it does
  const sharper = later(200, () => state.picture && sharpen(view));
  let waits = false;

  function redraw() {
    if (!waits) requestAnimationFrame(() => {
      waits = false;
      if (state.picture) state.draw({ list: false });
    });
    waits = true;
    sharper();
  }

  // Two fingers move and zoom; one draws a box, or moves what does not fit; a mouse's middle button
  // moves, and so does Shift.
  function begins(event) {
    if (event.button === 1 || event.shiftKey) return "move";
    return event.pointerType === "touch" && !at("boxes").checked ? "move" : "box";
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button > 1) return;
    if (event.button === 1) event.preventDefault();
    down.set(event.pointerId, event);
    canvas.setPointerCapture(event.pointerId);
    start = down.size > 1 ? null : { event, does: begins(event), moved: false };
    view.box = null;
  });

  canvas.addEventListener("pointermove", (event) => {
    const before = down.get(event.pointerId);
    if (!before) return;
    if (down.size === 2) pinch(before, event);
    else if (start) drag(before, event);
    down.set(event.pointerId, event);
  });

  function pinch(before, event) {
    const [other] = [...down.values()].filter((one) => one.pointerId !== event.pointerId);
    const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
    view.nearer(apart(event) / Math.max(1, apart(before)), view.share(other));
    redraw();
  }

  function drag(before, event) {
    const first = start.event;
    start.moved ||= Math.hypot(event.clientX - first.clientX, event.clientY - first.clientY) > SLIP;
    if (!start.moved) return;
    if (start.does === "box") view.box = corners(view.place(first), view.place(event));
    else {
      const [[x0, y0], [x1, y1]] = [view.share(before), view.share(event)];
      view.move(x0 - x1, y0 - y1);
    }
    redraw();
  }

  canvas.addEventListener("pointerup", (event) => {
    if (start && down.has(event.pointerId)) {
      view.cross = null;
      if (!start.moved && event.button === 0) point(view.place(event), labelOf(event));
      else if (start.does === "box" && view.box) finish(view.box);
    }
    leave(event);
  });
  canvas.addEventListener("pointercancel", leave);

  function leave(event) {
    down.delete(event.pointerId);
    [start, view.box] = [null, null];
    if (state.picture) redraw();
  }

  function finish(drawn) {
    view.box = null;
    if (drawn[2] > drawn[0] && drawn[3] > drawn[1]) box(drawn);
  }

  canvas.addEventListener("wheel", (event) => {
    const scale = event.deltaMode ? LINE : 1;
    const times = Math.exp(-event.deltaY * scale * (event.ctrlKey ? 0.01 : 0.0015)); // a pinch of a touchpad
    if (view.zoom === 1 && times <= 1) return; // the page's own
    event.preventDefault();
    view.nearer(times, view.share(event));
    redraw();
  }, { passive: false });

  const acts = {
    "+": () => view.nearer(2, cross()),
    "=": () => view.nearer(2, cross()),
    "-": () => view.nearer(1 / 2, cross()),
    0: () => view.whole(),
    b: () => corner(),
    h: () => active() && hide(active()),
    PageUp: () => another(-1),
    PageDown: () => another(1),
    Backspace: () => takeBack(active()),
    Delete: () => takeBack(active()),
    Escape: () => ([view.cross, view.box, held] = [null, null, null]),
    Enter: (event) => point(here(), labelOf(event)),
    " ": (event) => point(here(), labelOf(event)),
  };

  let held = null; // a box's first corner, set by key
  function here() {
    if (!view.cross) view.moveCross(0, 0);
    return view.cross;
  }

  function cross() {
    if (!view.cross) return [0.5, 0.5];
    const [column, row] = view.onCanvas(...view.cross);
    return [column / canvas.width, row / canvas.height];
  }

  function corner() {
    if (held) finish(corners(held, here()));
    held = held ? null : here();
    view.box = held && corners(held, held);
  }

  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (MOVES[key]) {
      view.moveCross(...MOVES[key]);
      if (held) view.box = corners(held, view.cross);
    } else if (acts[key]) acts[key](event);
    else return;
    event.preventDefault();
    if (state.picture) state.draw({ list: false });
  });
  canvas.addEventListener("blur", () => {
    [view.cross, view.box, held] = [null, null, null];
    if (state.picture) state.draw({ list: false });
  });

  const buttons = { nearer: 2, farther: 1 / 2, whole: 0 };
  for (const [id, times] of Object.entries(buttons)) {
    at(id).addEventListener("click", () => {
      if (times) view.nearer(times);
      else view.whole();
      redraw();
    });
  }
}

export const corners = ([x0, y0], [x1, y1]) => (
  [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)]
);

// What is chosen below the picture; with Shift, the other.
function labelOf(event) {
  return Number(at("against").checked === event.shiftKey);
}
