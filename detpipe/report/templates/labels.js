"use strict";
// The page on which a person corrects labels. Items (suspects, or images to label) are shown one at a time; only the
// current one is in the document. All changes of an item are in its record, so undo and localStorage are simple.
//
// A record: verdict ("" is undecided, see VERDICTS), time (when it was decided; a counter), boxes. A box of a record: box
// (x1 y1 x2 y2 in pixels of the image, unchanged numbers stay exact), label, base (index among the item's boxes; null for
// a box that the person drew), gone (deleted).

const content = pageData();
const STORE = `detpipe labels ${content.dataset} ${content.file}`;
const UNDO_LIMIT = 200;
const CORNERS = { nw: "Top left corner", ne: "Top right corner", se: "Bottom right corner", sw: "Bottom left corner" };
const EDGES = ["n", "e", "s", "w"];
const KINDS = {
  missing: "Label missing?",
  wrong_class: "Wrong class?",
  misplaced: "Wrong box?",
  spurious: "Not an object?",
  unlabelled: "Image to label",
};
const KIND_NAMES = { missing: "missing", wrong_class: "wrong class", misplaced: "wrong box", spurious: "not an object" };
const VERDICTS = {
  correct: "correct",
  change: "label changed",
  remove: "label removed",
  add: "object added",
  none: "not an object",
  accept: "boxes accepted",
  skip: "skipped",
};

const items = content.items;
const images = content.images;
const colours = new Map(content.classes);
const byId = (id) => document.getElementById(id);

let records = {};
let past = [];
let clock = 0;
let current = 0;
let shown = [];
let selected = 0;
let editing = null; // the boxes as they were when the corners were shown, or null
let drawing = false;
let hidden = false;
let zoomed = null; // null: chosen by the size of the box
let kept = true; // whether localStorage works
let savedText = "";
let shownView = null;

// Items of one object, by image and object: what is decided on one of them holds for the others.
const sameObject = new Map();
items.forEach((item, index) => {
  if (item.object !== null) {
    const name = `${item.image} ${item.object}`;
    sameObject.set(name, [...(sameObject.get(name) ?? []), index]);
  }
});

// ---- records

function fresh(item) {
  const boxes = item.boxes.map(([x1, y1, x2, y2, label], base) => ({ box: [x1, y1, x2, y2], label, base, gone: false }));
  return { verdict: "", time: 0, boxes };
}

function recordOf(item) {
  return records[item.key] ?? fresh(item);
}

// Change the record of the current item, as one step of undo. step: changes in a row with the same name are one step.
// later: the caller stores it, since a pointer moves too often for that.
function change(edit, step = null, later = false) {
  const item = items[current];
  const after = structuredClone(recordOf(item));
  edit(after);
  after.time = ++clock;
  const last = past[past.length - 1];
  if (step === null || !last || last.step !== step || last.key !== item.key) {
    past.push({ key: item.key, before: records[item.key] ?? null, step });
    past = past.slice(-UNDO_LIMIT);
  }
  records[item.key] = after;
  if (!later) store();
}

function undo() {
  const last = past.pop();
  if (!last) {
    say("There is nothing to undo.");
    return;
  }
  if (last.before === null) delete records[last.key];
  else records[last.key] = last.before;
  store();
  const index = items.findIndex((item) => item.key === last.key);
  drawing = false;
  if (index === current && editing && recordOf(items[index]).boxes[selected]) render();
  else if (index >= 0) {
    stopEditing();
    if (!passes(items[index])) clearFilters();
    go(index);
  }
  say("Undone.");
}

// What all decisions on an object make of it, in the order of their time: null if nothing.
function outcome(image, object) {
  const decided = (sameObject.get(`${image} ${object}`) ?? [])
    .map((index) => [recordOf(items[index]), items[index]])
    .filter(([record]) => record.verdict === "remove" || record.verdict === "change")
    .sort(([a], [b]) => a.time - b.time);
  let made = null;
  for (const [record, item] of decided) {
    if (record.verdict === "remove") {
      made = { removed: true, label: null, box: null };
      continue;
    }
    const [x1, y1, x2, y2, label] = item.boxes[0];
    const now = record.boxes[0];
    made = { removed: false, label: made?.label ?? null, box: made?.box ?? null };
    if (now.label !== label) made.label = now.label;
    if (!sameBox(now.box, [x1, y1, x2, y2])) made.box = now.box;
  }
  return made;
}

function sameBox(a, b) {
  return a.every((value, index) => value === b[index]);
}

// An item is settled if it is decided, or if its object was removed at another suspect.
function isSettled(item) {
  return recordOf(item).verdict !== "" || (item.object !== null && outcome(item.image, item.object)?.removed === true);
}

// ---- corrections.json

function corrections() {
  const rows = [];
  const objects = new Set();
  for (const item of items) {
    const record = records[item.key];
    if (!record) continue;
    const name = `${item.image} ${item.object}`;
    if (item.object !== null && !objects.has(name)) {
      objects.add(name);
      const made = outcome(item.image, item.object);
      const id = images[item.image].objects[item.object]?.[5] ?? null;
      if (made?.removed) rows.push(row(item, "remove", item.object, null, null, id));
      else if (made && (made.box || made.label !== null)) rows.push(row(item, "change", item.object, made.box, made.label, id));
    }
    for (const one of record.boxes) {
      const isAdded = one.base === null || (item.kind === "missing" && record.verdict === "add");
      const isAccepted = item.kind === "unlabelled" ? record.verdict === "accept" : isAdded;
      if (isAccepted && !one.gone) rows.push(row(item, "add", null, one.box, one.label, null));
    }
  }
  return rows;
}

// A row as JSON. The image's id is JSON already, since numbers of JavaScript do not hold all integers.
function row(item, action, object, box, label, id) {
  const image = images[item.image];
  const values = [["action", action], ["object", object], ["box", box], ["label", label]];
  if (image.split !== null) values.push(["split", image.split]);
  if (id !== null) values.push(["id", id]);
  const rest = values.map(([name, value]) => `"${name}": ${JSON.stringify(value)}`);
  return `{"image": ${image.id}, ${rest.join(", ")}}`;
}

function correctionsText() {
  const rows = corrections();
  const list = rows.length ? `[\n    ${rows.join(",\n    ")}\n  ]` : "[]";
  return `{\n  "dataset": ${JSON.stringify(content.dataset)},\n  "corrections": ${list}\n}\n`;
}

function save() {
  const text = correctionsText();
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const link = make("a", { href: address, download: "corrections.json" });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60000);
  savedText = text;
  const count = corrections().length;
  say(`Saved ${counted(count, "correction")} as corrections.json.`);
}

function counted(count, name) {
  return `${count} ${name}${count === 1 ? "" : "s"}`;
}

// ---- what survives a reload

function store() {
  try {
    const state = { records, past, clock, at: items[current]?.key ?? null, letters: byId("letters").checked };
    localStorage.setItem(STORE, JSON.stringify(state));
    kept = true;
  } catch {
    kept = false; // a private window, or a full store
  }
  byId("unkept").hidden = kept;
}

function restore() {
  let state = null;
  try {
    state = JSON.parse(localStorage.getItem(STORE));
    localStorage.setItem(`${STORE} try`, "");
    localStorage.removeItem(`${STORE} try`);
  } catch {
    kept = false;
  }
  byId("unkept").hidden = kept;
  if (!state || typeof state !== "object") return;
  const known = new Map(items.map((item) => [item.key, item]));
  const isSound = ([key, record]) => known.has(key) && record?.boxes?.length >= known.get(key).boxes.length;
  records = Object.fromEntries(Object.entries(state.records ?? {}).filter(isSound));
  past = Array.isArray(state.past) ? state.past.filter((one) => known.has(one?.key)) : [];
  clock = Number(state.clock) || 0;
  byId("letters").checked = state.letters !== false;
  const index = items.findIndex((item) => item.key === state.at);
  if (index >= 0) current = index;
}

// ---- filters and steps

function passes(item) {
  const label = byId("by-class").value;
  const kind = byId("by-kind")?.value ?? "";
  const state = byId("by-state").value;
  if (kind && item.kind !== kind) return false;
  if (label && item.label !== label && !recordOf(item).boxes.some((one) => one.label === label)) {
    if (!item.boxes.some((one) => one[4] === label)) return false;
  }
  if (state === "open") return !isSettled(item);
  if (state === "skip") return recordOf(item).verdict === "skip";
  if (state === "done") return isSettled(item) && recordOf(item).verdict !== "skip";
  return true;
}

function filterItems() {
  shown = items.flatMap((item, index) => (passes(item) ? [index] : []));
}

function clearFilters() {
  for (const id of ["by-class", "by-kind", "by-state"]) if (byId(id)) byId(id).selectedIndex = 0;
}

function filtered() {
  keepEdit();
  stopEditing();
  filterItems();
  if (shown.length && !shown.includes(current)) current = shown[0];
  selected = 0;
  zoomed = null;
  render();
  say(shown.length ? `${counted(shown.length, "item")} shown.` : "No item passes these filters.");
}

function go(index) {
  stopEditing();
  current = index;
  selected = 0;
  zoomed = null;
  store();
  filterItems();
  render();
  // What a screen reader tells of the new item; the visible line below the buttons tells what was decided.
  byId("heard").textContent = ["what", "where", "why", "facts"].map((id) => byId(id).innerText).join(". ");
}

// Whoever drags a corner and goes on without saving means the new box: it is kept. Gives what to say.
function keepEdit() {
  const item = items[current];
  if (!editing || !item || isUnlabelled(item) || selected > 0) return "";
  if (sameBox(editing[0].box, recordOf(item).boxes[0].box)) return "";
  change((record) => (record.verdict = item.kind === "missing" ? "add" : "change"));
  editing = null;
  return "Box changed.";
}

// The next item of those shown, in a direction; the current one may have left them by its decision.
function step(direction) {
  const kept = keepEdit();
  const ahead = direction > 0 ? shown.find((index) => index > current) : shown.findLast((index) => index < current);
  if (ahead === undefined) say(direction > 0 ? "This is the last one." : "This is the first one.");
  else {
    go(ahead);
    say(kept);
  }
}

function nextOpen() {
  const kept = keepEdit();
  const open = shown.filter((index) => !isSettled(items[index]));
  const ahead = open.find((index) => index > current) ?? open[0];
  if (ahead === undefined) say("All of these are decided. Save the corrections.");
  else {
    go(ahead);
    say(kept);
  }
}

// Decide on the current item and show the next one that is undecided.
function decide(verdict, edit = () => {}, words = VERDICTS[verdict]) {
  change((record) => {
    record.verdict = verdict;
    edit(record);
  });
  editing = null;
  drawing = false;
  filterItems();
  const open = shown.filter((index) => !isSettled(items[index]));
  const ahead = open.find((index) => index > current) ?? open[0];
  const done = items.filter(isSettled).length;
  if (ahead === undefined) {
    filterItems();
    render();
    say(`${first(words)}. ${done} of ${items.length} decided. All of these are decided. Save the corrections.`);
  } else {
    go(ahead);
    say(`${first(words)}. ${done} of ${items.length} decided.`);
  }
}

function first(words) {
  return words.charAt(0).toUpperCase() + words.slice(1);
}

// ---- actions

const isUnlabelled = (item) => item.kind === "unlabelled";

function suggest() {
  const item = items[current];
  if (isUnlabelled(item)) {
    const count = recordOf(item).boxes.filter((one) => !one.gone).length;
    decide("accept", () => {}, count === 1 ? "1 box accepted" : `${count} boxes accepted`);
  } else if (item.action === "remove") decide("remove");
  else {
    decide(item.action === "add" ? "add" : "change", (record) => {
      const isNewLabel = item.action === "add" || item.label !== item.boxes[0][4];
      if (item.label !== null && isNewLabel) record.boxes[0].label = item.label;
      if (item.box !== null) record.boxes[0].box = [...item.box];
    });
  }
}

// The label is as it should be: what was changed in it is dropped.
function correct() {
  const item = items[current];
  if (isUnlabelled(item)) return;
  decide(item.kind === "missing" ? "none" : "correct", restoreBox);
}

function restoreBox(record) {
  if (!isUnlabelled(items[current])) record.boxes[0] = fresh(items[current]).boxes[0];
}

function notAnObject() {
  const item = items[current];
  const record = recordOf(item);
  if (isUnlabelled(item) || record.boxes[selected]?.base === null) removeBox(selected);
  else if (item.kind === "missing") decide("none");
  else decide("remove");
}

function removeBox(index) {
  const one = recordOf(items[current]).boxes[index];
  if (!one) return;
  stopEditing();
  change((record) => {
    if (one.base === null) record.boxes.splice(index, 1);
    else record.boxes[index].gone = !one.gone;
  });
  selected = Math.min(index, recordOf(items[current]).boxes.length - 1);
  render();
  say(one.gone ? "Box restored." : "Box deleted.");
}

async function pickClass() {
  const item = items[current];
  const record = recordOf(item);
  const one = record.boxes[selected];
  if (!one) return;
  const at = selected;
  const first = item.label ?? null;
  const label = await picked(`Class of this ${isUnlabelled(item) ? "box" : "object"}`, first === null ? one.label : first);
  if (label === null) return;
  if (isUnlabelled(item) || at > 0) {
    change((after) => (after.boxes[at].label = label));
    render();
    say(`Class ${label}.`);
  } else if (item.kind !== "missing" && label === item.boxes[0][4] && sameBox(one.box, fresh(item).boxes[0].box)) {
    say(`The label says ${label} already.`);
  } else {
    decide(item.kind === "missing" ? "add" : "change", (after) => (after.boxes[0].label = label), `class ${label}`);
  }
}

function editBox() {
  if (editing) {
    saveBox();
    return;
  }
  const one = recordOf(items[current]).boxes[selected];
  if (!one || one.gone) return;
  startEditing();
  byId("handles").querySelector(".handle")?.focus();
  say("Drag a corner, or move it with the arrow keys. Tab goes to the next corner. Enter saves the box.");
}

function startEditing() {
  editing = structuredClone(recordOf(items[current]).boxes);
  drawing = false;
  render();
}

function stopEditing() {
  editing = null;
  drawing = false;
}

function saveBox() {
  const item = items[current];
  const record = recordOf(item);
  const before = editing;
  if (isUnlabelled(item) || record.boxes[selected]?.base === null) {
    stopEditing();
    render();
    byId("what").focus({ preventScroll: true });
    say("Box saved.");
  } else if (item.kind === "missing") decide("add");
  else if (sameBox(record.boxes[0].box, fresh(item).boxes[0].box)) {
    editing = before;
    say("The box has not changed. Drag a corner first, or press Esc.");
  } else decide("change", () => {}, "box changed");
}

function leaveBox() {
  const before = editing;
  stopEditing();
  const same = JSON.stringify(before) === JSON.stringify(recordOf(items[current]).boxes);
  if (!same) change((record) => (record.boxes = before));
  render();
  byId("what").focus({ preventScroll: true });
  say("The box is as it was.");
}

function startDrawing() {
  stopEditing();
  drawing = true;
  render();
  byId("what").focus({ preventScroll: true });
  say("Drag a box on the picture, or press Enter for a box in the middle. Esc leaves.");
}

async function addBox(box, byKeys) {
  drawing = false;
  render();
  byId("lines").append(...lines(box, "label"));
  const item = items[current];
  const used = recordOf(item).boxes.findLast((one) => one.base === null)?.label ?? item.boxes[0]?.[4] ?? null;
  const label = await picked("Class of the new box", used);
  if (label === null) {
    render();
    return;
  }
  change((record) => record.boxes.push({ box, label, base: null, gone: false }));
  selected = recordOf(item).boxes.length - 1;
  render();
  say(`Box added: ${label}.`);
  if (byKeys) editBox();
}

// ---- the list of classes

// The class that a person picks, or null. first: offered at the top.
function picked(title, first) {
  const names = content.classes.map(([name]) => name);
  if (first !== null) names.sort((a, b) => (b === first) - (a === first));
  if (names.length === 1 && title === "Class of the new box") return Promise.resolve(names[0]);
  const dialog = byId("picker");
  const filter = byId("filter");
  byId("picker-title").textContent = title;
  filter.value = "";
  let found = [];
  let at = 0;
  return new Promise((resolve) => {
    const draw = () => {
      found.forEach((name, index) => {
        const option = byId(`option-${index}`);
        option.setAttribute("aria-selected", String(index === at));
        if (index === at) option.scrollIntoView({ block: "nearest" });
      });
      filter.setAttribute("aria-activedescendant", found.length ? `option-${at}` : "");
    };
    const list = () => {
      const wanted = filter.value.trim().toLowerCase();
      const places = names.map((name) => [name, name.toLowerCase().indexOf(wanted)]).filter(([, place]) => place >= 0);
      if (wanted) places.sort(([, a], [, b]) => (a > 0) - (b > 0));
      found = places.slice(0, 200).map(([name]) => name);
      at = 0;
      const options = found.map((name, index) => {
        const chip = make("i", { class: "chip" });
        chip.style.background = colours.get(name);
        const option = make("li", { role: "option", id: `option-${index}` }, chip, name);
        option.addEventListener("click", () => take(name));
        return option;
      });
      byId("options").replaceChildren(...(options.length ? options : [make("li", { role: "presentation" }, "no class has these letters")]));
      draw();
    };
    const take = (name) => {
      dialog.close();
      resolve(name);
    };
    filter.oninput = list;
    filter.onkeydown = (event) => {
      const way = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
      if (way && found.length) {
        at = Math.max(0, Math.min(found.length - 1, at + way));
        draw();
        event.preventDefault();
      } else if (event.key === "Enter" && !event.isComposing) {
        event.preventDefault();
        if (found.length) take(found[at]);
      }
    };
    byId("cancel").onclick = () => dialog.close();
    dialog.onclose = () => resolve(null); // also by Esc; nothing happens after take()
    list();
    dialog.showModal();
    filter.focus();
  });
}

// ---- the picture

// Pictures of the current item and its neighbours; others are only text in the file.
const decoded = new Map();

function pictureOf(image) {
  if (!decoded.has(image)) {
    const text = byId(`picture-${image}`).textContent.trim();
    if (!text) return null;
    const picture = new Image();
    picture.src = `data:image/jpeg;base64,${text}`;
    picture.draggable = false;
    decoded.set(image, picture);
  }
  return decoded.get(image);
}

function decodeNeighbours() {
  const at = shown.indexOf(current);
  const near = new Set([current, shown[at + 1], shown[at - 1]].filter((i) => i !== undefined).map((i) => items[i].image));
  for (const image of [...decoded.keys()]) if (!near.has(image)) decoded.delete(image);
  for (const image of near) pictureOf(image)?.decode().catch(() => {});
}

// The part of the image that is shown: x, y, width, height. Zoomed in, it is three times the box's size; if the box is
// large and the person asks for it, less.
function viewOf(image, boxes) {
  const whole = [0, 0, image.width, image.height];
  if (!boxes.length) return whole;
  const [x1, y1, x2, y2] = [0, 1, 2, 3].map((i) => Math[i < 2 ? "min" : "max"](...boxes.map((box) => box[i])));
  const size = Math.max((x2 - x1) / image.width, (y2 - y1) / image.height);
  const share = Math.min(1, Math.max(size * (zoomed && size > 0.3 ? 1.1 : 3), zoomed ? 0.06 : 0.2));
  if (zoomed === false || (zoomed === null && share > 0.45) || share >= 1) return whole;
  const [width, height] = [image.width * share, image.height * share];
  const x = Math.max(0, Math.min(image.width - width, (x1 + x2 - width) / 2));
  const y = Math.max(0, Math.min(image.height - height, (y1 + y2 - height) / 2));
  return [x, y, width, height];
}

function lines(box, kind, colour = null) {
  const place = { x: box[0], y: box[1], width: Math.max(0, box[2] - box[0]), height: Math.max(0, box[3] - box[1]) };
  const line = makeSvg("rect", { ...place, class: kind });
  if (colour) line.style.stroke = colour;
  return [makeSvg("rect", { ...place, class: `edge ${kind}` }), line];
}

function renderStage(item, record) {
  const image = images[item.image];
  const stage = byId("stage");
  const view = byId("view");
  stage.style.setProperty("--ratio", image.width / image.height);
  stage.classList.toggle("drawing", drawing);
  const before = [...view.querySelectorAll("img, .none")];
  const picture = pictureOf(item.image) ?? make("p", { class: "none" }, "The image could not be read.");
  if (picture.tagName === "IMG") picture.alt = described(item, record);
  if (before[0] !== picture) {
    before.forEach((one) => one.remove());
    view.prepend(picture);
  }
  // While a box is moved, the view stays: it must not run away under the pointer.
  if (!editing || !shownView) {
    const one = isUnlabelled(item) ? record.boxes[selected] : record.boxes[0];
    const around = one ? [one.box] : [];
    if (item.box) around.push(item.box);
    if (record.boxes[selected] && !isUnlabelled(item)) around.push(record.boxes[selected].box);
    if (isUnlabelled(item) && zoomed === null) around.length = 0;
    shownView = viewOf(image, around);
  }
  const [x, y, width, height] = shownView;
  view.style.width = `${(100 * image.width) / width}%`;
  view.style.height = `${(100 * image.height) / height}%`;
  view.style.left = `${(-100 * x) / width}%`;
  view.style.top = `${(-100 * y) / height}%`;
  byId("zoom").setAttribute("aria-pressed", String(width < image.width));
  renderLines(item, record, image);
  renderHandles(record, image);
}

function renderLines(item, record, image) {
  const svg = byId("lines");
  svg.setAttribute("viewBox", `0 0 ${image.width} ${image.height}`);
  const drawn = [];
  const legend = [];
  if (!hidden) {
    image.objects.forEach((object, index) => {
      if (index !== item.object) drawn.push(...lines(object, "other"));
    });
    if (image.objects.length > (item.object === null ? 0 : 1)) legend.push(["other", "other labels"]);
    if (isUnlabelled(item)) {
      record.boxes.forEach((one, index) => {
        if (!one.gone && index !== selected) drawn.push(...lines(one.box, "own", colours.get(one.label)));
      });
      const one = record.boxes[selected];
      if (one && !one.gone) drawn.push(...lines(one.box, "own selected", colours.get(one.label)));
    } else {
      const base = fresh(item).boxes[0];
      const now = record.boxes[0];
      if (item.box && !sameBox(item.box, base.box)) {
        drawn.push(...lines(item.box, "model"));
        legend.push(["model", "the model's box"]);
      }
      if (!sameBox(now.box, base.box)) drawn.push(...lines(base.box, "before"));
      const isNew = item.kind === "missing" && record.verdict !== "add" && !editing;
      drawn.push(...lines(now.box, isNew ? "model" : "label"));
      legend.unshift(isNew ? ["model", "the proposed box"] : ["label", item.kind === "missing" ? "the new box" : "the label's box"]);
      record.boxes.slice(1).forEach((one) => drawn.push(...lines(one.box, "label")));
    }
  }
  svg.replaceChildren(...drawn);
  byId("legend").replaceChildren(
    ...legend.map(([kind, words]) => {
      const sample = makeSvg("svg", { viewBox: "0 0 30 10", "aria-hidden": "true" });
      sample.append(makeSvg("rect", { x: -5, y: 5, width: 40, height: 20, class: kind }));
      return make("span", {}, sample, words);
    }),
  );
}

function described(item, record) {
  const image = images[item.image];
  const boxes = record.boxes.filter((one) => !one.gone).map((one) => `${one.label} at ${rounded(one.box)}`);
  return `${image.name}, ${image.width} by ${image.height} pixels. ${boxes.length ? boxes.slice(0, 20).join("; ") : "No boxes"}.`;
}

function rounded(box) {
  return box.map((value) => Math.round(value)).join(", ");
}

// ---- moving a box

function renderHandles(record, image) {
  const layer = byId("handles");
  const focused = document.activeElement?.dataset?.way;
  const made = [];
  const percent = (box) => [box[0] / image.width, box[1] / image.height, box[2] / image.width, box[3] / image.height].map((v) => 100 * v);
  const isMany = record.boxes.length > 20;
  if (!hidden) {
    record.boxes.forEach((one, index) => {
      const isListed = isUnlabelled(items[current]) || index > 0;
      if (one.gone || !isListed || (isMany && index !== selected) || (editing && index === selected)) return;
      const [left, top] = percent(one.box);
      const tag = make("span", { class: "tag", "aria-hidden": "true" }, index === selected ? `${index + 1} ${one.label}` : index + 1);
      tag.style.left = `${Math.max(0, left)}%`;
      tag.style.top = `${Math.max(0, top)}%`;
      made.push(tag);
    });
  }
  const one = record.boxes[selected];
  if (editing && one && !one.gone) {
    const [left, top, right, bottom] = percent(one.box);
    const place = (way) => [/w/.test(way) ? left : /e/.test(way) ? right : (left + right) / 2, /n/.test(way) ? top : /s/.test(way) ? bottom : (top + bottom) / 2];
    const body = make("button", { type: "button", class: "body", "data-way": "nwse", "aria-label": spoken("nwse", one.box) });
    Object.assign(body.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
    const corners = Object.keys(CORNERS).map((way) => handle(way, place(way), { "aria-label": spoken(way, one.box) }));
    const edges = EDGES.map((way) => handle(way, place(way), { tabindex: "-1", "aria-hidden": "true" }, "edge"));
    made.push(...corners, body, ...edges);
    body.style.zIndex = 1;
    edges.forEach((edge) => (edge.style.zIndex = 2));
    corners.forEach((corner) => (corner.style.zIndex = 3));
  }
  if (moving && layer.childElementCount === made.length) {
    // The handle that is dragged must stay, since it has captured the pointer.
    [...layer.children].forEach((old, index) => {
      old.style.cssText = made[index].style.cssText;
      if (made[index].hasAttribute("aria-label")) old.setAttribute("aria-label", made[index].getAttribute("aria-label"));
    });
    return;
  }
  layer.replaceChildren(...made);
  if (focused) layer.querySelector(`[data-way="${focused}"]`)?.focus({ preventScroll: true });
}

function handle(way, [left, top], attributes, kind = "") {
  const made = make("button", { type: "button", class: `handle ${way} ${kind}`, "data-way": way, ...attributes });
  made.style.left = `${left}%`;
  made.style.top = `${top}%`;
  return made;
}

function spoken(way, box) {
  const [x1, y1, x2, y2] = box.map((value) => Math.round(value * 10) / 10);
  if (way === "nwse") return `Whole box, x ${x1} to ${x2}, y ${y1} to ${y2}`;
  return `${CORNERS[way] ?? "Edge"}, x ${/w/.test(way) ? x1 : x2}, y ${/n/.test(way) ? y1 : y2}`;
}

// The box with the sides in `way` (n, e, s, w) moved by dx and dy, inside of the image, at least a pixel wide and high.
// Only sides that move are rounded, to a tenth of a pixel: the others stay as the file has them.
function movedBox(box, way, dx, dy, image) {
  const made = [...box];
  const tenth = (value) => Math.round(value * 10) / 10;
  if (way === "nwse") {
    const shift = (low, high, by, size) => Math.max(Math.min(0, -low), Math.min(Math.max(0, size - high), by));
    const [sx, sy] = [shift(box[0], box[2], dx, image.width), shift(box[1], box[3], dy, image.height)];
    if (sx) [made[0], made[2]] = [tenth(box[0] + sx), tenth(box[2] + sx)];
    if (sy) [made[1], made[3]] = [tenth(box[1] + sy), tenth(box[3] + sy)];
    return made;
  }
  const within = (value, low, high) => tenth(Math.max(low, Math.min(high, value)));
  if (dx && /w/.test(way)) made[0] = within(box[0] + dx, 0, box[2] - 1);
  if (dx && /e/.test(way)) made[2] = within(box[2] + dx, box[0] + 1, image.width);
  if (dy && /n/.test(way)) made[1] = within(box[1] + dy, 0, box[3] - 1);
  if (dy && /s/.test(way)) made[3] = within(box[3] + dy, box[1] + 1, image.height);
  return made[0] < made[2] && made[1] < made[3] ? made : box;
}

let moving = null; // way, x and y of the pointer in the image, and the box as it was, while a handle is dragged

function pointOf(event) {
  const image = images[items[current].image];
  const frame = byId("view").getBoundingClientRect();
  return [((event.clientX - frame.left) / frame.width) * image.width, ((event.clientY - frame.top) / frame.height) * image.height];
}

function inside([x, y], image) {
  return [Math.max(0, Math.min(image.width, x)), Math.max(0, Math.min(image.height, y))].map((value) => Math.round(value * 10) / 10);
}

function pointerDown(event) {
  if (event.button !== 0 || !shown.length) return;
  const item = items[current];
  const [x, y] = pointOf(event);
  const way = event.target.dataset?.way;
  moving = { way, x, y, box: way ? [...recordOf(item).boxes[selected].box] : null, isMoved: false, step: `drag ${clock}` };
  if (way || drawing) {
    event.preventDefault();
    event.target.setPointerCapture?.(event.pointerId);
    if (way) event.target.focus({ preventScroll: true });
  }
}

function pointerMove(event) {
  if (!moving) return;
  const item = items[current];
  const image = images[item.image];
  const [x, y] = pointOf(event);
  const frame = byId("view").getBoundingClientRect();
  const pixels = Math.hypot(((x - moving.x) * frame.width) / image.width, ((y - moving.y) * frame.height) / image.height);
  if (!moving.isMoved && pixels < 3) return;
  moving.isMoved = true;
  if (moving.way) {
    const box = movedBox(moving.box, moving.way, x - moving.x, y - moving.y, image);
    change((record) => (record.boxes[selected].box = box), moving.step, true);
    renderStage(item, recordOf(item));
    renderVerdicts(item, recordOf(item));
  } else if (drawing) {
    const box = spanned(moving, [x, y], image);
    byId("lines").querySelectorAll(".drawn").forEach((one) => one.remove());
    const made = lines(box, "label");
    made.forEach((one) => one.classList.add("drawn"));
    byId("lines").append(...made);
  }
}

function spanned(start, end, image) {
  const [a, b] = [inside([start.x, start.y], image), inside(end, image)];
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
}

function pointerUp(event) {
  if (!moving) return;
  const { way, isMoved } = moving;
  const start = moving;
  moving = null;
  const item = items[current];
  const image = images[item.image];
  const point = pointOf(event);
  if (drawing) {
    const box = spanned(start, point, image);
    if (isMoved && box[2] - box[0] >= 2 && box[3] - box[1] >= 2) addBox(box, false);
    else render();
  } else if (isMoved && way) {
    store();
    render();
  } else if (!isMoved && (!way || way === "nwse")) choose(point);
}

// Select the smallest box under a point; again, the next larger one. A click on the picture beside all boxes does nothing.
function choose([x, y]) {
  const item = items[current];
  const under = recordOf(item)
    .boxes.map((one, index) => ({ ...one, index }))
    .filter(({ box, gone }) => !gone && box[0] <= x && x <= box[2] && box[1] <= y && y <= box[3])
    .sort((a, b) => area(a.box) - area(b.box));
  if (!under.length) return;
  const at = under.findIndex(({ index }) => index === selected);
  const next = editing && at >= 0 ? under[(at + 1) % under.length].index : under[at >= 0 && !editing ? at : 0].index;
  if (editing && next === selected) return;
  selected = next;
  startEditing();
}

function area(box) {
  return (box[2] - box[0]) * (box[3] - box[1]);
}

function moveByKey(way, key, isFar) {
  const item = items[current];
  const image = images[item.image];
  const picture = pictureOf(item.image);
  const pixel = picture?.naturalWidth ? Math.max(1, image.width / picture.naturalWidth) : 1;
  const far = (isFar ? 10 : 1) * pixel;
  const [dx, dy] = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] }[key];
  const before = recordOf(item).boxes[selected].box;
  const box = movedBox(before, way, dx, dy, image);
  if (!sameBox(before, box)) change((record) => (record.boxes[selected].box = box), `${way} ${selected}`);
  render();
  sayLater(spoken(way, box));
}

// ---- the rest of the page

function render() {
  const isEmpty = !shown.length;
  byId("work").hidden = isEmpty;
  byId("nothing").hidden = !isEmpty;
  byId("nothing").textContent = items.length ? "No item passes these filters." : "There is nothing to correct.";
  const focused = document.activeElement;
  renderCount();
  if (isEmpty) {
    if (!focused.getClientRects().length) byId("by-state").focus();
    return;
  }
  const item = items[current];
  const record = recordOf(item);
  if (!editing) shownView = null;
  byId("what").textContent = KINDS[item.kind] ?? item.kind;
  const image = images[item.image];
  const split = image.split ? ` (${image.split})` : "";
  const place = shown.indexOf(current) + 1;
  byId("where").textContent = plain(`${place || "–"} of ${shown.length} · ${image.name}${split}`);
  byId("why").textContent = plain(item.why);
  renderFacts(item, record);
  renderBoxes(item, record);
  renderVerdicts(item, record);
  renderStage(item, record);
  decodeNeighbours();
  byId("previous").disabled = !shown.some((index) => index < current);
  byId("next").disabled = !shown.some((index) => index > current);
  const now = document.activeElement;
  const isLost = now === document.body ? focused !== now : now.disabled || !now.getClientRects().length;
  if (isLost) refocus();
}

function refocus() {
  byId("what").focus({ preventScroll: true });
}

function renderCount() {
  const settled = items.filter(isSettled).length;
  const skipped = items.filter((item) => recordOf(item).verdict === "skip").length;
  const parts = [make("b", {}, `${settled} of ${items.length}`), " decided"];
  if (skipped) parts.push(` (${skipped} skipped)`);
  byId("count").replaceChildren(...parts);
  const bar = byId("progress");
  bar.max = Math.max(1, items.length);
  bar.value = settled;
  byId("undo").disabled = !past.length;
  const count = corrections().length;
  byId("save").textContent = count ? `Save ${counted(count, "correction")}` : "Save corrections";
}

function named(label) {
  const chip = make("i", { class: "chip" });
  chip.style.background = colours.get(label) ?? "#737d8d";
  return [chip, label];
}

function renderFacts(item, record) {
  const facts = [];
  const fact = (name, ...values) => facts.push(make("dt", {}, name), make("dd", {}, ...values));
  if (!isUnlabelled(item)) {
    const base = fresh(item).boxes[0];
    if (item.kind === "missing") fact("Labels say", "nothing here");
    else fact("Label says", ...named(base.label));
    if (item.action === "remove") fact("Model says", "no object");
    else fact("Model says", ...named(item.label ?? base.label), make("small", {}, item.kind === "misplaced" ? ", in another box" : ""));
    const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("i"));
    bar.firstChild.style.width = `${100 * item.score}%`;
    fact("Score", bar, item.score.toFixed(2));
    const made = item.object === null ? null : outcome(item.image, item.object);
    const words = [];
    if (made?.removed) words.push("removed");
    if (made?.label !== null && made?.label !== undefined) words.push(`class ${made.label}`);
    if (made?.box) words.push("another box");
    if (record.verdict === "add") words.push(record.boxes[0].label);
    const decided = VERDICTS[record.verdict] ?? (words.length ? "decided at another suspect" : "");
    if (decided) fact("Decision", words.length ? `${decided}: ${words.join(", ")}` : decided);
  } else if (record.verdict) fact("Decision", VERDICTS[record.verdict]);
  byId("facts").replaceChildren(...facts);
}

function renderBoxes(item, record) {
  const list = byId("boxes");
  const at = document.activeElement?.closest?.("#boxes li") ? [...list.children].indexOf(document.activeElement.closest("li")) : -1;
  const part = document.activeElement?.dataset?.part;
  const rows = record.boxes.flatMap((one, index) => {
    if (!isUnlabelled(item) && index === 0) return [];
    const score = one.base === null ? null : item.boxes[one.base][5];
    const words = `${index + 1} ${one.label}${score === null ? "" : ` ${score.toFixed(2)}`}`;
    const chip = make("i", { class: "chip" });
    chip.style.background = colours.get(one.label) ?? "#737d8d";
    const pick = make("button", { type: "button", class: "pick", "data-part": "pick", "aria-pressed": String(index === selected) }, chip, words);
    const remove = make("button", { type: "button", "data-part": "remove", "aria-label": `${one.gone ? "Restore" : "Delete"} box ${words}` }, one.gone ? "Restore" : "Delete");
    pick.addEventListener("click", () => select(index));
    remove.addEventListener("click", () => removeBox(index));
    return [make("li", { class: one.gone ? "gone" : null }, pick, remove)];
  });
  list.hidden = !rows.length;
  list.replaceChildren(...rows);
  if (at >= 0) {
    const now = rows[Math.min(at, rows.length - 1)];
    if (now) now.querySelector(`[data-part="${part}"]`)?.focus({ preventScroll: true });
    else refocus();
  }
  const chosen = rows[isUnlabelled(item) ? selected : selected - 1];
  if (chosen) list.scrollTop = Math.max(Math.min(list.scrollTop, chosen.offsetTop - list.offsetTop), chosen.offsetTop - list.offsetTop + chosen.offsetHeight - list.clientHeight);
}

function select(index) {
  stopEditing();
  selected = index;
  render();
  const one = recordOf(items[current]).boxes[index];
  sayLater(`Box ${index + 1} of ${recordOf(items[current]).boxes.length}: ${one.label}${one.gone ? ", deleted" : ""}.`);
}

// The large buttons: id, words, whether the decision that it makes is the current one (null: it makes none), and whether
// it is switched off.
function buttonsOf(item, record) {
  const one = record.boxes[selected];
  const isOwn = one?.base === null;
  if (isUnlabelled(item)) {
    const count = record.boxes.filter((each) => !each.gone).length;
    return [
      ["suggest", count ? `Accept ${count === 1 ? "the box" : `all ${count} boxes`}` : "Accept: no objects", record.verdict === "accept"],
      ["class", "Change class…", null, !one || one.gone],
      ["box", editing ? "Save the box" : "Change box", null, !one || one.gone],
      ["remove", one?.gone ? "Restore box" : "Delete box", null, !one],
      ["draw", "Draw a box", drawing],
      ["skip", "Skip", record.verdict === "skip"],
    ];
  }
  const label = item.label;
  const isMissing = item.kind === "missing";
  const suggestions = {
    remove: "Not an object: remove the label",
    add: `Missing: add ${label}`,
    change: label !== null && label !== item.boxes[0][4] ? `Change to ${label}${item.box && !sameBox(item.box, item.boxes[0]) ? " and the model's box" : ""}` : "Use the model's box",
  };
  const isBoxSame = sameBox(record.boxes[0].box, item.boxes[0]);
  return [
    ["suggest", suggestions[item.action] ?? "As the model", isSuggested(item, record)],
    ...(isMissing ? [] : [["correct", "Correct", record.verdict === "correct"]]),
    ["class", isMissing ? "Add, other class…" : "Wrong class…", !isMissing && record.verdict === "change" && record.boxes[0].label !== item.boxes[0][4] && !isSuggested(item, record)],
    ["box", editing ? "Save the box" : isMissing ? "Add, other box" : "Wrong box", record.verdict === "change" && !isBoxSame && !isSuggested(item, record)],
    ["remove", isOwn ? "Delete added box" : "Not an object", record.verdict === "none" || (record.verdict === "remove" && item.action !== "remove")],
    ["draw", "Draw a missing object", drawing],
    ["skip", "Skip", record.verdict === "skip"],
  ];
}

function isSuggested(item, record) {
  if (record.verdict !== item.action) return false;
  const now = record.boxes[0];
  return item.action === "remove" || (now.label === (item.label ?? item.boxes[0][4]) && sameBox(now.box, item.box ?? item.boxes[0]));
}

const ACTIONS = {
  suggest,
  correct,
  class: pickClass,
  box: editBox,
  remove: notAnObject,
  draw: startDrawing,
  skip: () => decide("skip", restoreBox),
};
const KEYS = { suggest: "A", correct: "C", class: "W", box: "B", remove: "N", draw: "D", skip: "S" };
const verdictButtons = new Map(Object.entries(KEYS).map(([name, key]) => [name, verdictButton(name, key)]));

function verdictButton(name, key) {
  const button = make("button", { type: "button", id: `do-${name}`, class: name === "suggest" ? "main" : null, "aria-keyshortcuts": key });
  button.append(make("span"), make("kbd", { "aria-hidden": "true" }, key));
  button.addEventListener("click", () => shown.length && ACTIONS[name]());
  byId("verdicts").append(button);
  return button;
}

function renderVerdicts(item, record) {
  const wanted = buttonsOf(item, record);
  for (const [name, button] of verdictButtons) button.hidden = !wanted.some((one) => one[0] === name);
  for (const [name, words, isPressed, isOff] of wanted) {
    const button = verdictButtons.get(name);
    button.firstChild.textContent = plain(words);
    button.disabled = Boolean(isOff);
    if (isPressed === null || isPressed === undefined) button.removeAttribute("aria-pressed");
    else button.setAttribute("aria-pressed", String(Boolean(isPressed)));
  }
}

let later = 0;

function say(words) {
  clearTimeout(later);
  byId("said").textContent = plain(words);
}

// What is said of moves: only the last one of many in a row.
function sayLater(words) {
  clearTimeout(later);
  later = setTimeout(() => say(words), 300);
}

// ---- keys

const LETTERS = {
  a: () => ACTIONS.suggest(),
  c: () => correct(),
  w: () => pickClass(),
  b: () => editBox(),
  n: () => notAnObject(),
  d: () => startDrawing(),
  s: () => ACTIONS.skip(),
  u: () => nextOpen(),
  z: () => byId("zoom").click(),
  h: () => byId("hide").click(),
};

function keyDown(event) {
  if (byId("picker").open) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if ((event.ctrlKey || event.metaKey) && !event.altKey) {
    const action = { z: undo, s: save }[key];
    if (action && !event.shiftKey) {
      event.preventDefault();
      action();
    }
    return;
  }
  const target = event.target;
  if (event.altKey || target.matches("select, textarea, input:not([type=checkbox])")) return;
  if (!shown.length && key !== "?") return;
  const way = target.dataset?.way;
  const action = actionOf(key, way, event);
  if (action) {
    event.preventDefault();
    action();
  }
}

function actionOf(key, way, event) {
  const isArrow = /^Arrow/.test(key);
  if (way && isArrow) return () => moveByKey(way, key, event.shiftKey);
  if (way && (key === "Enter" || key === " ")) return saveBox;
  if (drawing && key === "Enter" && !event.target.matches("button, summary, a")) return () => addBox(middleBox(), true);
  if (key === "Escape") {
    if (editing) return leaveBox;
    if (drawing) return () => { stopEditing(); render(); say(""); };
    return null;
  }
  if (key === "ArrowLeft") return () => step(-1);
  if (key === "ArrowRight") return () => step(1);
  const boxes = recordOf(items[current]).boxes;
  if ((key === "ArrowUp" || key === "ArrowDown") && boxes.length > 1) {
    return () => select((selected + (key === "ArrowUp" ? boxes.length - 1 : 1)) % boxes.length);
  }
  if (key === "Delete" && (isUnlabelled(items[current]) || selected > 0)) return () => removeBox(selected);
  if (!byId("letters").checked || event.shiftKey && key !== "?") return null;
  if (key === "?") return () => { byId("keys").open = !byId("keys").open; byId("keys").scrollIntoView({ block: "nearest" }); };
  return LETTERS[key] ?? null;
}

function middleBox() {
  const image = images[items[current].image];
  const [x, y, width, height] = shownView ?? [0, 0, image.width, image.height];
  const tenth = (value) => Math.round(value * 10) / 10;
  return [x + width * 0.375, y + height * 0.375, x + width * 0.625, y + height * 0.625].map(tenth);
}

// ---- start

function option(value, words) {
  return make("option", { value }, words);
}

function fillFilters() {
  const labels = new Map();
  const kinds = new Map();
  for (const item of items) {
    const own = new Set(item.boxes.map((one) => one[4]));
    if (item.label) own.add(item.label);
    own.forEach((label) => labels.set(label, (labels.get(label) ?? 0) + 1));
    kinds.set(item.kind, (kinds.get(item.kind) ?? 0) + 1);
  }
  const names = [...new Set([...content.classes.map(([name]) => name), ...labels.keys()])].filter((name) => labels.has(name));
  const own = (value, words) => {
    const made = option("", words);
    made.value = value;
    return made;
  };
  byId("by-class").replaceChildren(option("", "all"), ...names.map((name) => own(name, `${name} (${labels.get(name)})`)));
  const known = Object.keys(KIND_NAMES).filter((kind) => kinds.has(kind));
  byId("by-kind")?.replaceChildren(option("", "all"), ...known.map((kind) => option(kind, `${KIND_NAMES[kind]} (${kinds.get(kind)})`)));
}

function start() {
  fillFilters();
  restore();
  filterItems();
  if (shown.length && isSettled(items[current])) {
    const open = shown.find((index) => index > current && !isSettled(items[index])) ?? shown.find((index) => !isSettled(items[index]));
    if (open !== undefined) current = open;
  }
  for (const id of ["by-class", "by-kind", "by-state"]) byId(id)?.addEventListener("change", filtered);
  byId("undo").addEventListener("click", undo);
  byId("save").addEventListener("click", save);
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("open").addEventListener("click", nextOpen);
  byId("letters").addEventListener("change", store);
  byId("zoom").addEventListener("click", () => {
    zoomed = byId("zoom").getAttribute("aria-pressed") !== "true";
    shownView = null;
    render();
  });
  byId("hide").addEventListener("click", () => {
    hidden = !hidden;
    byId("hide").setAttribute("aria-pressed", String(hidden));
    render();
  });
  const stage = byId("stage");
  stage.addEventListener("pointerdown", pointerDown);
  stage.addEventListener("pointermove", pointerMove);
  stage.addEventListener("pointerup", pointerUp);
  stage.addEventListener("pointercancel", () => { moving = null; render(); });
  document.addEventListener("keydown", keyDown);
  window.addEventListener("storage", (event) => {
    if (event.key !== STORE || !event.newValue) return;
    const at = current; // another tab decided: its decisions are taken over, the place stays
    restore();
    current = at;
    stopEditing();
    filterItems();
    render();
  });
  window.addEventListener("beforeunload", (event) => {
    if (!kept && Object.keys(records).length && correctionsText() !== savedText) event.preventDefault();
  });
  byId("tool").hidden = false;
  render();
}

start();
