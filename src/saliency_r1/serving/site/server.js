// Asking the HTTP API, the same that programs use.

import {readZip} from "./zip.js";

/** An answer that says no. `index` is the place of the photo it is about, if it is about one. */
export class Refusal extends Error {
  constructor(problem) {
    super(problem.detail || "The server does not answer.");
    this.index = problem.index;
  }
}

/**
 * The results of a request, one for each photo.
 *
 * @param photos [{name, file}], names without ending, no two equal.
 * @param task sod, sis or cosod.
 * @param options {reasoning, phrase, signal, onWait}; onWait is told why the server lets the request wait.
 * @returns [{described, masks, cutout, overlay}]: the JSON, and blobs of PNG and JPEG pictures; masks[0] is
 *   the whole mask, the others are those of the objects.
 */
export async function ask(photos, task, {reasoning, phrase, signal, onWait}) {
  for (;;) {
    const form = new FormData();
    form.append("task", task);
    form.append("reasoning", String(reasoning));
    if (phrase) form.append("find", phrase);
    for (const {name, file} of photos) form.append("images", file, `${name}.photo`);
    const response = await fetch("v1/saliency", {
      method: "POST", body: form, signal, headers: {Accept: "application/zip"},
    });
    if (response.ok) return results(readZip(await response.arrayBuffer()));
    const problem = await response.json().catch(() => ({detail: `The server answered ${response.status}.`}));
    if (!/:(loading|busy)$/.test(problem.type)) throw new Refusal(problem);
    onWait(problem.detail);
    await pause(Number(response.headers.get("Retry-After")) || 1, signal);
    while (problem.type.endsWith(":loading") && !await isReady(signal)) await pause(1, signal);
  }
}

/** Whether the model is loaded: asked before the photos are sent again. */
async function isReady(signal) {
  const response = await fetch("readyz", {signal});
  return response.ok || !/:loading$/.test((await response.json()).type);
}

function results(files) {
  const text = bytes => new TextDecoder().decode(bytes);
  const described = files.filter(file => file.name.endsWith(".json")).map(file => JSON.parse(text(file.bytes)));
  const named = new Map(files.map(file => [file.name, file.bytes]));
  const blob = (name, type) => named.has(name) ? new Blob([named.get(name)], {type}) : null;
  return described.map(one => {
    const masks = [blob(`${one.name}_mask.png`, "image/png")];
    for (let number = 1; named.has(`${one.name}_mask_${number}.png`); number++)
      masks.push(blob(`${one.name}_mask_${number}.png`, "image/png"));
    const overlay = blob(`${one.name}_overlay.jpg`, "image/jpeg") || blob(`${one.name}_overlay.png`, "image/png");
    return {described: one, masks, cutout: blob(`${one.name}_cutout.png`, "image/png"), overlay};
  });
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, {once: true});
  });
}
