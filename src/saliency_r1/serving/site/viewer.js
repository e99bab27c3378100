// Shows one photo's result: before and after, words, confidence, downloads.

import {objectAlone, onBackground} from "./pictures.js";

const $ = id => document.getElementById(id);
const VIEWS = {original: "Original", cutout: "Cut-out", mask: "Mask", overlay: "Overlay"};
const BACKGROUNDS = {none: "None", "#ffffff": "White", "#000000": "Black", own: "Own colour"};
const UNNAMED = "the object";

let shown = null;  // {photo, result, task}
let view = "cutout", background = "none", object = 0, drawing = 0;
let addresses = [];

/** A confidence, the IoU that the masks are expected to have, in words and as a number. */
export function sureness(confidence) {
  if (confidence === null || confidence === undefined) return "unknown";
  const words = confidence >= 0.9 ? "very sure" : confidence >= 0.75 ? "fairly sure"
    : confidence >= 0.5 ? "not so sure" : "a guess";
  return `${words} (${confidence.toFixed(2)} of 1)`;
}

/** An expression as a person reads it. */
export function spoken(expression) {
  return expression === UNNAMED ? "(unnamed)" : expression;
}

/** What of the result goes into the archive of all results: [{name, bytes}]. */
export async function filesOf({name}, {described, masks, cutout, overlay}) {
  const files = masks.map((mask, number) => [number ? `${name}_mask_${number}.png` : `${name}_mask.png`, mask]);
  files.push([`${name}_cutout.png`, await grounded(cutout)]);
  files.push([`${name}_overlay.jpg`, overlay], [`${name}.json`, new Blob([JSON.stringify(described) + "\n"])]);
  return Promise.all(files.map(async ([path, blob]) => ({name: path, bytes: new Uint8Array(await blob.arrayBuffer())})));
}

export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), {href: URL.createObjectURL(blob), download: name});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Show the result of a photo; nothing without one. */
export function show(photo, result, task) {
  $("result").hidden = !result;
  if (!result) {
    shown = null;
    return;
  }
  const other = !shown || shown.task !== task;
  shown = {photo, result, task};
  object = 0;
  if (other) view = task === "sis" ? "overlay" : "cutout";
  describe();
  draw();
}

export function prepare() {
  choices($("views"), "view", VIEWS, view, value => { view = value; draw(); });
  choices($("backgrounds"), "background", BACKGROUNDS, background, value => { background = value; draw(); });
  const own = Object.assign(document.createElement("input"), {type: "color", id: "colour", value: "#2e7d32"});
  own.setAttribute("aria-label", "Own background colour");
  own.addEventListener("input", () => {
    background = "own";
    $("backgrounds").querySelector("[value=own]").checked = true;
    draw();
  });
  $("backgrounds").append(own);
  $("slider").addEventListener("input", slide);
  $("before").addEventListener("error", () => $("frame").classList.add("single"));
  const ending = () => object ? `_${object}` : "";
  $("save-mask").addEventListener("click", () =>
    save(shown.result.masks[object], `${shown.photo.name}_mask${ending()}.png`));
  $("save-cutout").addEventListener("click", async () =>
    save(await grounded(await cutout()), `${shown.photo.name}_cutout${ending()}.png`));
  $("save-json").addEventListener("click", () => save(new Blob([json()]), `${shown.photo.name}.json`));
  $("copy-json").addEventListener("click", copy);
}

function describe() {
  const {photo, result: {described, masks}, task} = shown;
  const found = described.instances.some(one => one.area > 0);
  const names = described.instances.map(one => spoken(one.expression));
  $("title").textContent = photo.name;
  $("found").textContent = found ? names.join("; ")
    : described.expressions.length ? `${described.expressions.map(spoken).join("; ")}: not found in this photo`
      : task === "cosod" ? "Nothing that the photos share stands out." : "Nothing stands out in this photo.";
  $("confidence").textContent =
    `${sureness(described.confidence)}: the overlap (IoU) that the mask is expected to have with the true outline`;
  $("reason").textContent = described.reasoning;
  $("reason-part").hidden = !described.reasoning;
  const several = masks.length > 2;
  $("objects").hidden = !several;
  if (several) {
    const labels = Object.fromEntries([["0", "All"], ...described.instances.map(
      (one, index) => [String(index + 1), `${index + 1}: ${spoken(one.expression)} (${one.score.toFixed(2)})`])]);
    choices($("objects"), "object", labels, "0", value => {
      object = Number(value);
      if (object && (view === "overlay" || view === "original")) view = "cutout";
      draw();
    });
  }
}

async function draw() {
  const turn = ++drawing;
  const {photo, result} = shown;
  $("views").querySelector(`[value=${view}]`).checked = true;
  const blob = view === "original" ? photo.file : view === "mask" ? result.masks[object]
    : view === "overlay" ? result.overlay : await cutout();
  if (turn !== drawing) return;  // something else was chosen meanwhile
  addresses.forEach(URL.revokeObjectURL);
  addresses = [blob, photo.file].map(one => URL.createObjectURL(one));
  const what = object ? spoken(result.described.instances[object - 1].expression) : $("found").textContent;
  const frame = $("frame");
  frame.className = view === "cutout" ? "checked" : "";
  if (view === "cutout" && colour()) {
    frame.className = "";
    frame.style.setProperty("--ground", colour());
  } else frame.style.removeProperty("--ground");
  frame.classList.toggle("single", view === "original" || view === "overlay");
  $("after").alt = view === "original" ? `The photo ${photo.name}` : `${VIEWS[view]} of ${photo.name}: ${what}`;
  $("after").src = addresses[0];
  $("before").alt = `The original photo ${photo.name}`;
  $("before").src = addresses[1];
  $("backgrounds").hidden = view !== "cutout";
  slide();
}

function slide() {
  const share = $("slider").value;
  $("frame").style.setProperty("--at", `${share}%`);
  $("slider").setAttribute("aria-valuetext", `${share} percent original, the rest ${VIEWS[view].toLowerCase()}`);
}

function cutout() {
  const {result} = shown;
  if (!object) return result.cutout;
  result.alone ||= {};
  return result.alone[object] ||= objectAlone(result.cutout, result.masks[object]);
}

function colour() {
  return background === "none" ? null : background === "own" ? $("colour").value : background;
}

function grounded(picture) {
  return colour() ? onBackground(picture, colour()) : picture;
}

function json() {
  return JSON.stringify(shown.result.described) + "\n";
}

async function copy() {
  try {
    await navigator.clipboard.writeText(json());
  } catch {  // without HTTPS there is no such clipboard
    const area = Object.assign(document.createElement("textarea"), {value: json()});
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  $("copy-json").textContent = "Copied";
  setTimeout(() => { $("copy-json").textContent = "Copy JSON"; }, 2000);
}

function choices(fieldset, name, labels, chosen, onChange) {
  fieldset.querySelectorAll("label").forEach(label => label.remove());
  for (const [value, text] of Object.entries(labels)) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), {type: "radio", name, value, checked: value === chosen});
    input.addEventListener("change", () => onChange(value));
    label.append(input, text);
    fieldset.append(label);
  }
}
