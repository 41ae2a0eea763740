"use strict";
// The page on which a person corrects labels: its state, undo, corrections.json, and what survives a reload. Items
// (suspects, or images to label) are shown one at a time. All changes of an item are in its record.
//
// A record: verdict ("" is undecided, see VERDICTS), time (when it was decided; a counter), boxes. A box of a record:
// box (x1 y1 x2 y2 in pixels of the image, unchanged numbers stay exact), label, base (index among the item's boxes;
// null for a box that the person drew), gone (deleted).

const content = pageData();
const STORE = `detpipe labels ${content.dataset} ${content.file}`;
const UNDO_LIMIT = 200;
const CORNERS = { nw: "Top left corner", ne: "Top right corner", se: "Bottom right corner", sw: "Bottom left corner" };
const SIDES = { n: "Top side", e: "Right side", s: "Bottom side", w: "Left side" };
const KINDS = {
  missing: "Label missing?",
  wrong_class: "Wrong class?",
  misplaced: "Wrong box?",
  spurious: "Not an object?",
  unlabelled: "Image to label",
};
const KIND_NAMES = {
  missing: "missing",
  wrong_class: "wrong class",
  misplaced: "wrong box",
  spurious: "not an object",
};
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
  const boxes = item.boxes.map(([x1, y1, x2, y2, label], base) => ({
    box: [x1, y1, x2, y2],
    label,
    base,
    gone: false,
  }));
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
      else if (made && (made.box || made.label !== null))
        rows.push(row(item, "change", item.object, made.box, made.label, id));
    }
    for (const one of addedBoxes(item)) rows.push(row(item, "add", null, one.box, one.label, null));
  }
  return rows;
}

// The boxes of an item's record that become new objects.
function addedBoxes(item) {
  const { verdict, boxes } = recordOf(item);
  const isAdded = (one) => one.base === null || (item.kind === "missing" && verdict === "add");
  return boxes.filter((one) => !one.gone && (item.kind === "unlabelled" ? verdict === "accept" : isAdded(one)));
}

// New images that were accepted without objects, as JSON.
function reviewed() {
  const isEmpty = (item) => {
    const record = records[item.key];
    return item.kind === "unlabelled" && record?.verdict === "accept" && record.boxes.every((one) => one.gone);
  };
  return items.filter(isEmpty).map((item) => images[item.image].id);
}

// A row as JSON. The image's id is JSON already, since numbers of JavaScript do not hold all integers.
function row(item, action, object, box, label, id) {
  const image = images[item.image];
  const values = [
    ["action", action],
    ["object", object],
    ["box", box],
    ["label", label],
  ];
  if (image.split !== null) values.push(["split", image.split]);
  if (id !== null) values.push(["id", id]);
  const rest = values.map(([name, value]) => `"${name}": ${JSON.stringify(value)}`);
  return `{"image": ${image.id}, ${rest.join(", ")}}`;
}

function correctionsText() {
  const rows = corrections();
  const list = rows.length ? `[\n    ${rows.join(",\n    ")}\n  ]` : "[]";
  const names = reviewed();
  const empty = names.length ? `,\n  "reviewed": [${names.join(", ")}]` : "";
  return `{\n  "dataset": ${JSON.stringify(content.dataset)},\n  "corrections": ${list}${empty}\n}\n`;
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
  say(`Saved ${savedParts() || "0 corrections"} as corrections.json.`);
}

// What corrections.json has, in words; "" if it has nothing.
function savedParts() {
  const count = corrections().length;
  const empty = reviewed().length;
  const parts = [];
  if (count) parts.push(counted(count, "correction"));
  if (empty) parts.push(`${counted(empty, "image")} without objects`);
  return parts.join(", ");
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
