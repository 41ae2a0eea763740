"use strict";
// The images of a run's report. detpipe/report/run/explorer.py makes the data and says what its rows are.

const PAGE = 24; // images that "more" adds: enough for a screen, few enough to be drawn while a threshold moves
const CARD_CAPTIONS = 6;
const data = pageData();
const state = {
  label: 0, // 0: all classes
  threshold: data.threshold,
  filter: "all",
  sort: data.annotated ? "worst" : "file",
  layers: { detections: true, objects: data.annotated, proposals: false },
  limit: PAGE,
  open: null, // the image that is enlarged
};
const cards = new Map(); // by image, made when they are first shown
let selected = []; // the images that the filter leaves, in order

// Rows of the data, by name.

const objectsOf = new Map();
const detectionsOf = new Map();
for (const image of data.images) {
  objectsOf.set(image, image.objects.map(asObject));
  detectionsOf.set(image, image.detections.map(asDetection));
}

function asObject([x1, y1, x2, y2, label, aside, foundFrom, kind, why, ...facts]) {
  return { box: [x1, y1, x2, y2], label, counted: aside === 0, foundFrom, kind, why, facts };
}

function asDetection([x1, y1, x2, y2, label, score, result, kind, why]) {
  return { box: [x1, y1, x2, y2], label, score, correct: result === 1, wrong: result === 0, kind, why };
}

function isChosen(one) {
  return state.label === 0 || one.label === state.label;
}

function isFound(object) {
  return object.foundFrom >= state.threshold;
}

function shownDetections(image) {
  return detectionsOf.get(image).filter((one) => one.score >= state.threshold && isChosen(one));
}

function wrongOnes(image) {
  return shownDetections(image).filter((one) => one.wrong);
}

function countedObjects(image) {
  return objectsOf.get(image).filter((one) => one.counted && isChosen(one));
}

function missedOnes(image) {
  return countedObjects(image).filter((one) => !isFound(one));
}

// Why an object is missed at the present threshold: [kind, why, facts]. The diagnosis was made at the first threshold.
function reasonOfMiss(object) {
  if (object.foundFrom >= data.threshold) {
    return [data.texts[data.lowScore], `found with a score of ${object.foundFrom.toFixed(2)}`, []];
  }
  if (object.kind === undefined) {
    return ["", "", []];
  }
  return [data.texts[object.kind], data.texts[object.why], object.facts.map((one) => data.texts[one])];
}

function reasonOfWrong(detection) {
  return detection.kind === undefined ? ["", ""] : [data.texts[detection.kind], data.texts[detection.why]];
}

// Counts of all images of the test set, also of those that the page has no room for.

function countsOf(label) {
  const at = data.thresholds.findIndex((one) => one >= state.threshold);
  const labels = label ? [label] : data.classes.map((_, i) => i + 1);
  const sum = (number) => labels.reduce((total, one) => total + number(one - 1), 0);
  const objects = sum((k) => data.objects[k]);
  const shown = sum((k) => data.shown[k][at]);
  const correct = sum((k) => data.correct[k][at]);
  return { objects, shown, correct, wrong: shown - correct, missed: objects - correct };
}

function percent(part, whole) {
  return whole ? `${((100 * part) / whole).toFixed(1)} %` : "–";
}

function sentence(counts) {
  if (!data.annotated) {
    return `${counted(counts.shown, "detection")}.`;
  }
  return (
    `${counted(counts.shown, "detection")}: ${counts.correct} correct, ${counts.wrong} wrong. ` +
    `${counts.missed} of ${counted(counts.objects, "object")} missed. ` +
    `Precision ${percent(counts.correct, counts.shown)}, recall ${percent(counts.correct, counts.objects)}.`
  );
}

function counted(n, name) {
  return `${n.toLocaleString("en")} ${name}${n === 1 ? "" : "s"}`;
}

// Which images, in which order.

const FILTERS = {
  all: () => true,
  missed: (image) => missedOnes(image).length > 0,
  wrong: (image) => wrongOnes(image).length > 0,
  none: (image) => !missedOnes(image).length && !wrongOnes(image).length,
};

function passes(image) {
  if (state.label && !countedObjects(image).length && !shownDetections(image).length) {
    return false;
  }
  const [what, kind] = state.filter.split(":");
  if (kind === undefined) {
    return FILTERS[what](image);
  }
  const errors = what === "miss" ? missedOnes(image).map(reasonOfMiss) : wrongOnes(image).map(reasonOfWrong);
  return errors.some(([one]) => one === data.texts[Number(kind)]);
}

function errorsOf(image) {
  return missedOnes(image).length + wrongOnes(image).length;
}

const ORDERS = {
  worst: (images) => byNumber(images, (image) => -errorsOf(image)),
  confident: (images) => byNumber(images, (image) => -Math.max(0, ...wrongOnes(image).map((one) => one.score))),
  best: (images) => byNumber(images, errorsOf),
  file: (images) => images,
};

// Equal images stay in the order of the data set, since sort is stable.
function byNumber(images, number) {
  const numbers = new Map(images.map((image) => [image, number(image)]));
  return [...images].sort((a, b) => numbers.get(a) - numbers.get(b));
}

// The boxes of an image on its picture.

// captions: at most so many boxes have one, since more of them would hide a small picture.
function boxesOf(image, captions) {
  const name = (label) => data.classes[label - 1].name;
  const boxes = [];
  let named = 0;
  const add = (one, kind, text) => {
    const caption = named < captions ? text : "";
    named += caption ? 1 : 0;
    boxes.push({ box: one.box, colour: data.classes[one.label - 1].colour, kind, caption });
  };
  if (state.layers.objects) {
    for (const one of objectsOf.get(image).filter(isChosen)) {
      const missed = one.counted && !isFound(one);
      add(one, missed ? "object missed" : "object", missed ? `missed: ${name(one.label)}` : "");
    }
  }
  if (state.layers.detections) {
    for (const one of shownDetections(image)) {
      const text = `${name(one.label)} ${one.score.toFixed(2)}`;
      add(one, "detection", data.annotated && one.wrong ? `wrong: ${text}` : text);
    }
  }
  if (state.layers.proposals) {
    for (const box of image.proposals) {
      boxes.push({ box, colour: "#ffffff", kind: "proposal", caption: "" });
    }
  }
  return boxes;
}

function picture(image, alt) {
  const img = image.src
    ? make("img", { src: image.src, alt, width: image.size[0], height: image.size[1], decoding: "async" })
    : make("span", { class: "nothing", role: "img", "aria-label": alt }, "no picture");
  return [img, makeSvg("svg", { class: "boxes", "aria-hidden": "true", preserveAspectRatio: "xMidYMid meet" })];
}

// How many pixels of the screen a pixel of the image has in a frame, which shows the whole image.
function scaleIn(frame, image) {
  return Math.max(1e-3, Math.min(frame.width / image.size[0], frame.height / image.size[1]));
}

function tally(image) {
  if (!data.annotated) {
    return counted(shownDetections(image).length, "detection");
  }
  const [objects, missed, wrong] = [countedObjects(image).length, missedOnes(image).length, wrongOnes(image).length];
  return `${objects - missed} of ${objects} found${wrong ? `, ${wrong} wrong` : ""}`;
}

// The grid of images.

function cardOf(image) {
  if (!cards.has(image)) {
    const text = make("span", { class: "tally" });
    const frame = make("span", { class: "frame" }, ...picture(image, ""));
    const button = make("button", { type: "button", class: "shot" }, frame, make("b", {}, image.name), " ", text);
    button.addEventListener("click", () => openViewer(image));
    const card = { image, item: make("li", {}, button), button, frame, text };
    cards.set(image, card);
    cardsByItem.set(card.item, card);
    onScreen.observe(card.item);
  }
  return cards.get(image);
}

// Only what is on the screen, or a little beyond it, is drawn while a threshold moves; the rest when it comes there.
const cardsByItem = new Map();
const visible = new Set();
const onScreen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const card = cardsByItem.get(entry.target);
      visible[entry.isIntersecting ? "add" : "delete"](card);
    }
    drawVisible();
  },
  { rootMargin: "400px" },
);

function drawVisible() {
  const drawn = [...visible].filter((card) => card.item.isConnected);
  if (!drawn.length) {
    return;
  }
  // All frames have the same size, so one is measured before anything is drawn.
  const frame = drawn[0].frame.getBoundingClientRect();
  for (const card of drawn) {
    drawBoxes(card.frame.querySelector("svg"), card.image.size, boxesOf(card.image, CARD_CAPTIONS), scaleIn(frame, card.image));
  }
}

function showGrid() {
  const shown = selected.slice(0, state.limit);
  const made = shown.map(cardOf);
  const items = made.map((card) => card.item);
  // Without a change of the order nothing is moved, so the focus stays.
  if (items.length !== part.grid.children.length || items.some((item, i) => item !== part.grid.children[i])) {
    part.grid.replaceChildren(...items);
  }
  part.more.hidden = selected.length <= state.limit;
  part.more.textContent = `Show ${Math.min(PAGE, selected.length - state.limit)} more images`;
  for (const card of made) {
    card.text.textContent = tally(card.image);
  }
  drawVisible();
}

function showCounts() {
  const chosen = state.label ? `${data.classes[state.label - 1].name}: ` : "";
  part.summary.textContent = plain(chosen + sentence(countsOf(state.label)));
  part.which.textContent = whichImages();
  part.table.replaceChildren(...data.classes.map((_, i) => classRow(i + 1)));
}

function whichImages() {
  const text = `${selected.length.toLocaleString("en")} of ${counted(data.images.length, "image")}.`;
  if (data.images.length === data.total) {
    return text;
  }
  return (
    `${text} The page has no room for ${data.total - data.images.length} more with fewer errors; ` +
    "the counts are of all images."
  );
}

function classRow(label) {
  const { name, colour } = data.classes[label - 1];
  const counts = countsOf(label);
  const chip = make("i", { class: "chip" });
  chip.style.background = colour;
  const cells = data.annotated
    ? [counts.objects, counts.correct, counts.missed, counts.wrong]
    : [counts.shown];
  const shares = data.annotated
    ? [percent(counts.correct, counts.shown), percent(counts.correct, counts.objects)]
    : [];
  const row = make("tr", { "data-class": name }, make("td", {}, chip, name));
  row.append(...[...cells, ...shares].map((value) => make("td", {}, value.toLocaleString("en"))));
  return row;
}

// Draw everything again. What the reader changes is in `state`, and nothing else is kept.
function update() {
  selected = ORDERS[state.sort](data.images.filter(passes));
  for (const range of part.ranges) {
    range.value = state.threshold;
    range.setAttribute("aria-valuetext", state.threshold.toFixed(2));
  }
  for (const output of part.outputs) {
    output.textContent = state.threshold.toFixed(2);
  }
  part.reset.hidden = state.threshold === data.threshold;
  for (const box of part.boxes) {
    box.checked = state.layers[box.dataset.layer];
  }
  showCounts();
  showGrid();
  showViewer();
}

let waiting = false;

// A slider reports more changes than a screen can show.
function updateSoon() {
  if (!waiting) {
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      update();
    });
  }
}

// The enlarged image.

function openViewer(image) {
  state.open = image;
  part.viewer.showModal();
  showViewer();
  part.heading.focus();
}

function closeViewer() {
  part.viewer.close();
}

// The focus goes back to the image in the grid, even if another one was opened there.
function afterClose() {
  const image = state.open;
  state.open = null;
  const place = selected.indexOf(image);
  if (place < 0) {
    part.summary.focus();
    return;
  }
  if (place >= state.limit) {
    state.limit = place + 1;
    showGrid();
  }
  cardOf(image).button.focus();
}

function step(by) {
  const place = selected.indexOf(state.open) + by;
  if (place >= 0 && place < selected.length) {
    state.open = selected[place];
    showViewer();
  }
}

function showViewer() {
  const image = state.open;
  if (image === null) {
    return;
  }
  const place = selected.indexOf(image);
  part.heading.textContent = plain(image.name);
  part.place.textContent = place < 0 ? "" : `${place + 1} of ${selected.length}, ${tally(image)}`;
  part.previous.disabled = place === 0;
  part.next.disabled = place === selected.length - 1;
  if (part.frame.image !== image) {
    part.frame.image = image;
    part.frame.style.setProperty("--ratio", image.size[0] / image.size[1]);
    part.frame.replaceChildren(...picture(image, `${image.name} with its boxes`));
  }
  const frame = part.frame.getBoundingClientRect();
  drawBoxes(part.frame.querySelector("svg"), image.size, boxesOf(image, Infinity), scaleIn(frame, image));
  const lists = [list("Objects", objectsOf.get(image).filter(isChosen).map(objectText))];
  lists.push(list("Detections", shownDetections(image).map(detectionText)));
  const hadFocus = part.lists.contains(document.activeElement);
  part.lists.replaceChildren(...(data.annotated ? lists : lists.slice(1)));
  if (hadFocus) {
    part.heading.focus();
  }
}

function list(title, rows) {
  const items = rows.map(([label, text, below, facts = []]) => {
    const chip = make("i", { class: "chip" });
    chip.style.background = data.classes[label - 1].colour;
    const name = make("b", {}, data.classes[label - 1].name);
    const more = facts.length ? [factsOf(facts)] : [];
    return make("li", {}, chip, name, ` ${text}`, ...(below ? [make("small", {}, below)] : []), ...more);
  });
  const nothing = make("p", { class: "none" }, "none");
  return make("div", {}, make("h3", {}, `${title} (${rows.length})`), rows.length ? make("ul", {}, ...items) : nothing);
}

function factsOf(facts) {
  const lines = facts.map((one) => make("li", {}, one));
  return make("details", { class: "facts" }, make("summary", {}, "Stages, and what to change"), make("ul", {}, ...lines));
}

function objectText(object) {
  if (!object.counted) {
    return [object.label, "not counted (difficult or a crowd)", ""];
  }
  if (isFound(object)) {
    return [object.label, `found, ${object.foundFrom.toFixed(2)}`, ""];
  }
  const [kind, why, facts] = reasonOfMiss(object);
  return [object.label, kind ? `missed, ${kind}` : "missed", why, facts];
}

function detectionText(detection) {
  const score = detection.score.toFixed(2);
  if (!data.annotated) {
    return [detection.label, score, ""];
  }
  if (!detection.wrong) {
    return [detection.label, `${score} ${detection.correct ? "correct" : "not counted"}`, ""];
  }
  const [kind, why] = reasonOfWrong(detection);
  return [detection.label, `${score} wrong${kind ? `, ${kind}` : ""}`, why];
}

// Keys of the enlarged image. A control that uses the arrows itself keeps them.
function onViewerKey(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) {
    return;
  }
  const usesArrows = event.target.matches("input[type=range], select");
  const act = {
    ArrowLeft: () => step(-1),
    ArrowRight: () => step(1),
    o: () => toggleLayer("objects"),
    d: () => toggleLayer("detections"),
    p: () => toggleLayer("proposals"),
  }[event.key];
  if (act && !(usesArrows && event.key.startsWith("Arrow"))) {
    event.preventDefault();
    act();
  }
}

// Controls.

function toggleLayer(name) {
  state.layers[name] = !state.layers[name];
  update();
}

function setThreshold(value) {
  const step = Math.round(Math.min(1, Math.max(0, value)) * 100) / 100;
  // The first threshold is no multiple of a step, but can be reached again.
  state.threshold = Math.abs(value - data.threshold) < 1e-9 ? data.threshold : step;
  updateSoon();
}

function thresholdControl(id) {
  const range = make("input", { type: "range", id, min: 0, max: 1, step: "any", autocomplete: "off" });
  const output = make("output", { for: id });
  range.addEventListener("input", () => setThreshold(range.valueAsNumber));
  range.addEventListener("keydown", (event) => onRangeKey(event));
  part.ranges.push(range);
  part.outputs.push(output);
  return make("div", { class: "threshold" }, make("label", { for: id }, "Score at least"), range, output);
}

// With any step allowed, browsers differ in what an arrow does.
function onRangeKey(event) {
  const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
  if (by !== undefined) {
    event.preventDefault();
    const place = state.threshold * 100;
    setThreshold((by > 0 ? Math.floor(place + 1e-6) + by : Math.ceil(place - 1e-6) + by) / 100);
  }
}

function choice(id, title, options, change) {
  const select = make("select", { id, autocomplete: "off" }, ...options);
  select.addEventListener("change", () => {
    change(select.value);
    state.limit = PAGE;
    update();
  });
  return make("div", {}, make("label", { for: id }, title), select);
}

function option(value, text) {
  return make("option", { value }, text);
}

function classControl() {
  const names = data.classes.map(({ name }, i) => option(String(i + 1), name));
  return choice("class", "Class", [option("0", "all classes"), ...names], (value) => {
    state.label = Number(value);
  });
}

function filterControl() {
  const options = [
    option("all", "all images"),
    option("missed", "with missed objects"),
    option("wrong", "with false detections"),
    option("none", "without errors"),
  ];
  const kinds = (what, title, found) => {
    if (found.length) {
      options.push(make("optgroup", { label: title }, ...found.map((k) => option(`${what}:${k}`, data.texts[k]))));
    }
  };
  kinds("miss", "missed because of", kindsOf(objectsOf, [data.lowScore]));
  kinds("false", "false because of", kindsOf(detectionsOf, []));
  return choice("filter", "Images", options, (value) => {
    state.filter = value;
  });
}

// The kinds of reasons that occur, the most frequent first.
function kindsOf(rows, always) {
  const counts = new Map(always.map((kind) => [kind, 0]));
  for (const one of [...rows.values()].flat()) {
    if (one.kind !== undefined) {
      counts.set(one.kind, (counts.get(one.kind) || 0) + 1);
    }
  }
  return [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a));
}

function sortControl() {
  const options = [
    option("worst", "most errors first"),
    option("confident", "most confident error first"),
    option("best", "fewest errors first"),
    option("file", "as in the data set"),
  ];
  return choice("sort", "Order", options, (value) => {
    state.sort = value;
  });
}

function layerControls(where) {
  const names = { detections: "detections", objects: "objects", proposals: "proposals" };
  const boxes = Object.entries(names).map(([layer, name]) => {
    const box = make("input", { type: "checkbox", "data-layer": layer, id: `${where}-${layer}`, autocomplete: "off" });
    box.disabled = layer === "proposals" ? !data.images.some((image) => image.proposals.length) : layer === "objects" && !data.annotated;
    box.addEventListener("change", () => toggleLayer(layer));
    part.boxes.push(box);
    return make("label", { class: "layer" }, box, name);
  });
  return make("fieldset", {}, make("legend", {}, "Show"), ...boxes);
}

function button(text, act, attributes = {}) {
  const made = make("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", act);
  return made;
}

// The parts of the page that change.
const part = { ranges: [], outputs: [], boxes: [] };

function build() {
  const root = document.getElementById("explorer");
  const controls = make("div", { class: "controls" }, classControl(), thresholdControl("threshold"));
  part.reset = button(`Back to ${data.threshold.toFixed(2)} (${data.how})`, () => setThreshold(data.threshold));
  controls.append(part.reset);
  if (data.annotated) {
    controls.append(filterControl(), sortControl());
  }
  controls.append(layerControls("grid"));
  part.summary = make("p", { role: "status", tabindex: "-1", class: "summary" });
  part.which = make("p", { class: "note", role: "status" });
  part.grid = make("ul", { class: "gallery shots" });
  part.more = button("", showMore, { class: "more" });
  root.append(controls, part.summary, classTable(), part.which, part.grid, part.more, viewer());
  root.hidden = false;
  document.getElementById("static-images").hidden = true;
}

// The focus goes to the first image that was not there.
function showMore() {
  const first = selected[state.limit];
  state.limit += PAGE;
  showGrid();
  cardOf(first).button.focus();
}

function classTable() {
  const head = data.annotated
    ? ["class", "objects", "found", "missed", "wrong", "precision", "recall"]
    : ["class", "detections"];
  part.table = make("tbody");
  const row = make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)));
  const table = make("table", {}, make("thead", {}, row), part.table);
  const open = data.classes.length <= 10 && window.innerWidth > 560; // a phone shows the images first
  return make(
    "details",
    { open },
    make("summary", {}, "Each class at this score"),
    make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Each class at this score" }, table),
  );
}

function viewer() {
  part.heading = make("h2", { tabindex: "-1", id: "viewer-name" });
  part.place = make("p", { class: "note", role: "status" });
  part.previous = button("‹ Previous", () => step(-1));
  part.next = button("Next ›", () => step(1));
  part.frame = make("div", { class: "frame" });
  part.lists = make("div", { class: "lists" });
  const help = "Arrow keys: previous and next. D, O, P: detections, objects, proposals. Escape: close.";
  part.viewer = make(
    "dialog",
    { id: "viewer", "aria-labelledby": "viewer-name" },
    make("div", { class: "bar-of-buttons" }, part.previous, part.next, button("Close", closeViewer)),
    part.heading,
    part.place,
    part.frame,
    make("div", { class: "controls" }, thresholdControl("viewer-threshold"), layerControls("viewer")),
    part.lists,
    make("p", { class: "note keys" }, help),
  );
  part.viewer.addEventListener("keydown", onViewerKey);
  part.viewer.addEventListener("close", afterClose);
  return part.viewer;
}

build();
update();
// Captions have the size of the screen's text, so they are placed again when the screen changes.
window.addEventListener("resize", updateSoon);
