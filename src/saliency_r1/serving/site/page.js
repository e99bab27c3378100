// The page: photos, tabs, and the requests that are made for them.

import {Refusal, ask} from "./server.js";
import {filesOf, prepare, save, show} from "./viewer.js";
import {writeZip} from "./zip.js";

const $ = id => document.getElementById(id);
const AT_ONCE = 4;
const TASKS = {
  sod: {
    lead: "The one thing that stands out in each photo. Or name what you look for.",
    go: "Find the main subject", least: 1,
    examples: [["chelsea.jpg"], ["coffee.jpg"], ["astronaut.jpg"]],
  },
  sis: {
    lead: "Every object that stands out in each photo, with a mask of its own.",
    go: "Find the objects", least: 1,
    examples: [["astronaut.jpg"], ["coffee.jpg"], ["chelsea.jpg"]],
  },
  cosod: {
    lead: "What two or more photos have in common. Add all of them.",
    go: "Find the common subject", least: 2,
    examples: [["chelsea.jpg", "chelsea-mirrored.jpg", "chelsea-close.jpg"]],
  },
};

let task = "sod";
let photos = [];  // {name, file, address, results, states, line}: results and states by task
let chosen = null;
let queue = [], running = 0, counted = {done: 0, all: 0, failed: 0, start: 0};
let stop = new AbortController();

/* Photos */

function add(files) {
  const added = [...files].map(file => {
    const photo = {name: unusedName(file.name), file, address: URL.createObjectURL(file), results: {}, states: {}};
    photo.line = listed(photo);
    photos.push(photo);
    return photo;
  });
  photos.forEach(forgetGroup);
  render();
  if (task !== "cosod") enqueue(added);
  else if (photos.length >= TASKS.cosod.least) enqueue(photos);
}

function unusedName(fileName) {
  const base = fileName.replace(/\.[^.]*$/, "").replace(/[\p{C}/\\]/gu, "_").slice(0, 70).trim().replace(/^\.+|\.+$/g, "") || "photo";
  const taken = new Set(photos.map(photo => photo.name.toLowerCase()));
  let name = base;
  for (let number = 2; taken.has(name.toLowerCase()); number++) name = `${base}-${number}`;
  return name;
}

function remove(gone) {
  photos = photos.filter(photo => photo !== gone);
  queue = queue.filter(job => !job.photos.includes(gone));
  URL.revokeObjectURL(gone.address);
  photos.forEach(forgetGroup);
  if (chosen === gone) chosen = null;
  render();
  $("files").focus();
}

function forgetGroup(photo) {
  delete photo.results.cosod;
  delete photo.states.cosod;
}

async function addExample(names) {
  clear();
  add(await Promise.all(names.map(async name => {
    const content = await (await fetch(`page/examples/${name}`)).blob();
    return new File([content], name, {type: content.type});
  })));
}

function clear() {
  cancel();
  photos.forEach(photo => URL.revokeObjectURL(photo.address));
  photos = [];
  chosen = null;
  say("Add photos, or choose an example.");
  render();
}

/* Requests */

function enqueue(wanted) {
  const options = {task, reasoning: $("reasoning").checked, phrase: task === "sod" ? $("phrase").value.trim() : ""};
  if (!running) counted = {done: 0, all: 0, failed: 0, start: performance.now()};
  counted.all += wanted.length;
  const jobs = task === "cosod" ? [{photos: [...wanted], options}] : wanted.map(photo => ({photos: [photo], options}));
  for (const job of jobs) {
    for (const photo of job.photos) {
      delete photo.results[task];
      photo.states[task] = {text: "waiting"};
    }
    queue.push(job);
  }
  render();
  while (running < AT_ONCE && queue.length) work();
}

async function work() {
  const {signal} = stop;
  running++;
  while (queue.length && !signal.aborted) await answer(queue.shift(), signal);
  if (signal.aborted) return render();
  running--;
  if (!running) say(summary());
  render();
}

async function answer(job, signal) {
  const {options} = job;
  const mark = (photo, text, bad = false) => { photo.states[options.task] = {text, bad}; render(); };
  let left = job.photos;
  while (left.length) {
    left.forEach(photo => mark(photo, "working"));
    try {
      const results = await ask(left, options.task, {...options, signal, onWait: why => left.forEach(photo => mark(photo, why))});
      results.forEach((result, index) => {
        left[index].results[options.task] = result;
        counted.done++;
        mark(left[index], "done");
      });
      reveal(left[0], options.task);
      return;
    } catch (error) {
      if (signal.aborted) return left.forEach(photo => mark(photo, "cancelled"));
      const broken = error instanceof Refusal ? left[error.index] : undefined;
      const why = error instanceof Refusal ? error.message : "The server cannot be reached.";
      const failed = broken ? [broken] : left;
      failed.forEach(photo => mark(photo, why.replace(`${photo.name}: `, ""), true));
      counted.failed += failed.length;
      left = left.filter(photo => !failed.includes(photo));
      if (left.length && left.length < TASKS[options.task].least) {
        left.forEach(photo => mark(photo, "left out: no other photo of the group can be read", true));
        counted.failed += left.length;
        return;
      }
    }
  }
}

function cancel() {
  if (!running) return;
  stop.abort(new DOMException("cancelled", "AbortError"));
  stop = new AbortController();
  running = 0;
  queue.forEach(job => job.photos.forEach(photo => { photo.states[job.options.task] = {text: "cancelled"}; }));
  queue = [];
  say(`Cancelled. ${counted.done} of ${counted.all} photos are done.`);
  render();
}

function summary() {
  const seconds = ((performance.now() - counted.start) / 1000).toFixed(1);
  const count = number => `${number} photo${number === 1 ? "" : "s"}`;
  const failed = counted.failed ? ` ${count(counted.failed)} failed: see the list.` : "";
  return counted.done ? `Done: ${count(counted.done)} in ${seconds} s.${failed}` : `Not done.${failed}`;
}

/* What is seen */

function say(text) {
  $("status").textContent = text;
}

/** Show the first result that comes, and bring it into view where it is below the window. */
function reveal(photo, done) {
  if (done !== task) return;
  if (!chosen?.results[task]) chosen = photo;
  render();
  if (chosen !== photo) return;
  $("after").addEventListener("load", () => {  // before that the page is not as long as it will be
    if ($("output").getBoundingClientRect().top < 0.5 * innerHeight) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    $("output").scrollIntoView({behavior: calm ? "auto" : "smooth", block: "start"});
  }, {once: true});
}

function choose(photo) {
  chosen = photo;
  render();
  if (photo.results[task]) $("output").scrollIntoView({block: "nearest"});
}

let drawn = null;

function render() {
  const least = TASKS[task].least;
  const few = photos.length < least;
  $("warning").hidden = !(photos.length && few);
  $("warning").textContent = "One photo has nothing to share. Add at least one more photo.";
  $("go").disabled = few;
  $("clear").hidden = !photos.length;
  $("cancel").disabled = !running;
  $("progress").hidden = !running;
  $("progress").max = Math.max(1, counted.all);
  $("progress").value = counted.done + counted.failed;
  if (running) say(`${counted.done + counted.failed} of ${counted.all} photos done …`);
  photos.forEach(refresh);
  if (photos.length !== $("photos").children.length || photos.some((photo, index) => photo.line !== $("photos").children[index]))
    $("photos").replaceChildren(...photos.map(photo => photo.line));
  const result = chosen?.results[task] || null;
  if (result !== drawn || !result) show(chosen, result, task);
  drawn = result;
}

/** What the list shows of a photo; made once, since a large photo takes long to draw. */
function listed(photo) {
  const line = document.createElement("li"), button = document.createElement("button");
  button.className = "choose";
  button.addEventListener("click", () => choose(photo));
  const picture = Object.assign(document.createElement("img"), {alt: "", src: photo.address});
  picture.addEventListener("error", () => { picture.hidden = true; });
  const words = Object.assign(document.createElement("span"), {className: "words", textContent: photo.name});
  words.append(Object.assign(document.createElement("span"), {className: "state"}));
  button.append(picture, " ", words);
  const away = Object.assign(document.createElement("button"), {textContent: "✕"});
  away.setAttribute("aria-label", `Remove ${photo.name}`);
  away.addEventListener("click", () => remove(photo));
  line.append(button, away);
  return line;
}

function refresh(photo) {
  const {text, bad} = photo.states[task] || {text: "not looked at yet"};
  const state = photo.line.querySelector(".state");
  state.textContent = text;
  state.classList.toggle("bad", Boolean(bad));
  photo.line.querySelector(".choose").setAttribute("aria-pressed", String(photo === chosen));
}

function openTab(next) {
  task = next;
  const {lead, go, examples} = TASKS[task];
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const current = tab.dataset.task === task;
    tab.setAttribute("aria-selected", String(current));
    tab.tabIndex = current ? 0 : -1;
  }
  $("panel").setAttribute("aria-labelledby", `tab-${task}`);
  $("lead").textContent = lead;
  $("go").textContent = go;
  $("phrase-part").hidden = task !== "sod";
  $("examples").replaceChildren(...examples.map(names => {
    const button = document.createElement("button");
    const picture = Object.assign(document.createElement("img"), {alt: "", src: `page/thumbnails/${names[0]}`});
    button.append(picture, names.map(name => name.replace(/\..*/, "").replaceAll("_", " ")).join(", "));
    button.addEventListener("click", () => addExample(names));
    return button;
  }));
  if (!running) {
    const left = photos.filter(photo => !photo.results[task]).length;
    say(!photos.length ? "Add photos, or choose an example."
      : left ? `Your photos are here. Press “${go}”.` : "These photos are done.");
  }
  if (!chosen?.results[task]) chosen = photos.find(photo => photo.results[task]) || chosen;
  render();
}

function moveTab(event) {
  const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (!step) return;
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const next = tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length];
  openTab(next.dataset.task);
  next.focus();
}

async function saveAll() {
  const done = photos.filter(photo => photo.results[task]);
  const files = await Promise.all(done.map(photo => filesOf(photo, photo.results[task])));
  save(writeZip(files.flat()), "saliency.zip");
}

function start() {
  prepare();
  $("tabs").addEventListener("click", event => event.target.dataset.task && openTab(event.target.dataset.task));
  $("tabs").addEventListener("keydown", moveTab);
  $("files").addEventListener("change", () => {
    add($("files").files);
    $("files").value = "";  // the same file may be added again
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, event => {
      if (kind !== "dragleave") event.preventDefault();
      $("drop").classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) add(event.dataTransfer.files);
    });
  }
  $("go").addEventListener("click", () => enqueue(photos));
  $("phrase").addEventListener("keydown", event => event.key === "Enter" && photos.length && enqueue(photos));
  $("cancel").addEventListener("click", cancel);
  $("clear").addEventListener("click", clear);
  $("save-all").addEventListener("click", saveAll);
  openTab("sod");
}

start();
