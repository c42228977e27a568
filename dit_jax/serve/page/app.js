// The page: it draws what is open and asked, and passes events on.

import * as api from "./api.js";
import { saveCoco, saveSvg } from "./files.js";
import { watch } from "./gestures.js";
import { tellOfModel, watchTyping } from "./known.js";
import { listed } from "./list.js";
import { drawMaps, leaveMaps } from "./maps.js";
import { ask, clear, redo, undo } from "./masks.js";
import * as pictures from "./pictures.js";
import { at, attempt, complain, several } from "./say.js";
import { active, answered, isSeen, items, state } from "./steps.js";
import { View } from "./view.js";

const view = (state.view = new View(at("picture")));

async function start() {
  const model = (state.model = await api.model());
  tellOfModel(model);
  at("text").maxLength = model.longest;
  if (!model.reads) {
    at("field").hidden = true;
    document.querySelector("label[for=text]").textContent = "Click on the picture, or draw a box";
    at("find").textContent = "New mask";
  }
  watchTyping();
  watch(view);
  await pictures.restore();
}

// Drawing

state.draw = ({ list = true } = {}) => {
  const { picture } = state;
  const heat = drawMaps();
  const seen = items().filter(isSeen).map((item) => answered(item).mask).filter(Boolean);
  if (picture) view.draw({ items: seen, prompt: active()?.prompt, heat });
  if (list) drawList();
  at("drop").hidden = Boolean(picture);
  for (const id of ["picture", "kinds", "tools", "more"]) at(id).hidden = !picture;
  at("save").hidden = !picture?.drawn;
  at("suggestions").hidden = !picture || !at("suggestions").querySelector("button");
  at("near").textContent = `${Math.round(100 * view.zoom)} %`;
  at("farther").disabled = at("whole").disabled = view.zoom === 1;
  view.canvas.classList.toggle("near", view.zoom > 1);
  view.canvas.setAttribute("aria-label", `Picture with ${several(seen.length, "mask")}`);
  pictures.drawStrip();
};

// Rebuilds the list and keeps the focus where it was.
function drawList() {
  const focused = document.activeElement?.dataset?.focus;
  at("found").replaceChildren(...listed(items(), active()));
  const steps = state.picture?.steps;
  at("undo").disabled = !steps?.past.length;
  at("redo").disabled = !steps?.future.length;
  at("clear").disabled = at("opacity").disabled = !items().length;
  at("all").hidden = !steps || !(steps.past.length + steps.future.length + items().length);
  at("files").hidden = !items().length;
  pictures.remember();
  if (!focused) return;
  const again = [...document.querySelectorAll("[data-focus]")].find((one) => one.dataset.focus === focused);
  (again ?? at("undo")).focus();
}

// Events

at("file").addEventListener("change", async (event) => {
  await pictures.openFiles(event.target.files);
  event.target.value = "";
});
for (const button of document.querySelectorAll(".example")) {
  button.addEventListener("click", pictures.draw);
}
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("text").value.trim();
  if (!state.model.reads) ask({});
  else if (text) {
    at("text").select(); // what is typed next takes its place
    ask({ text });
  } else complain("Type what to look for.");
});
const clicks = { undo, redo, clear, coco: saveCoco, svg: saveSvg, share: pictures.share, close: pictures.close };
for (const [id, act] of Object.entries(clicks)) at(id).addEventListener("click", act);
at("layer").addEventListener("input", () => state.draw({ list: false }));
at("opacity").addEventListener("input", () => {
  view.opacity = at("opacity").value / 100;
  state.draw({ list: false });
});
at("save").addEventListener("click", async () => {
  const { id } = state.picture;
  await attempt("Saving …", () => api.save(api.drawingUrl(id), "drawing.png"));
});
for (const kind of document.querySelectorAll("#kinds input")) {
  kind.addEventListener("change", () => view.canvas.classList.toggle("boxes", at("boxes").checked));
}

document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if (key === "escape") {
    leaveMaps();
    state.draw({ list: false });
  }
  const typing = event.target === at("text") && at("text").value; // which has an undo of its own
  if (!(event.ctrlKey || event.metaKey) || event.altKey || typing || !["z", "y"].includes(key)) return;
  event.preventDefault();
  if (key === "y" || event.shiftKey) redo();
  else undo();
});

const stage = at("stage");
for (const kind of ["dragenter", "dragover"]) {
  stage.addEventListener(kind, (event) => {
    event.preventDefault();
    stage.classList.add("over");
  });
}
for (const kind of ["dragleave", "drop"]) stage.addEventListener(kind, () => stage.classList.remove("over"));
// A picture dropped beside the stage would otherwise replace the page.
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  pictures.openFiles(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => pictures.openFiles(event.clipboardData?.files ?? []));
addEventListener("hashchange", pictures.restore);
addEventListener("resize", () => state.picture && state.draw({ list: false }));

start().catch((error) => complain(error.message));
