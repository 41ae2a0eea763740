"use strict";
// The page on which a person corrects labels: filters, steps, decisions, buttons and keys. Only the current item is in
// the document. labels_records.js has the state, labels_boxes.js the picture, labels_classes.js the list of classes.

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
  const label = await picked(
    `Class of this ${isUnlabelled(item) ? "box" : "object"}`,
    first === null ? one.label : first,
  );
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
  byId("save").textContent = `Save ${savedParts() || "corrections"}`;
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
    else
      fact(
        "Model says",
        ...named(item.label ?? base.label),
        make("small", {}, item.kind === "misplaced" ? ", in another box" : ""),
      );
    const bar = make("span", { class: "bar", "aria-hidden": "true" }, make("i"));
    bar.firstChild.style.width = `${100 * item.score}%`;
    fact("Probability", bar, item.score.toFixed(2));
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
  const at = document.activeElement?.closest?.("#boxes li")
    ? [...list.children].indexOf(document.activeElement.closest("li"))
    : -1;
  const part = document.activeElement?.dataset?.part;
  const rows = record.boxes.flatMap((one, index) => {
    if (!isUnlabelled(item) && index === 0) return [];
    const score = one.base === null ? null : item.boxes[one.base][5];
    const words = `${index + 1} ${one.label}${score === null ? "" : ` ${score.toFixed(2)}`}`;
    const chip = make("i", { class: "chip" });
    chip.style.background = colours.get(one.label) ?? "#737d8d";
    const pick = make(
      "button",
      { type: "button", class: "pick", "data-part": "pick", "aria-pressed": String(index === selected) },
      chip,
      words,
    );
    const remove = make(
      "button",
      { type: "button", "data-part": "remove", "aria-label": `${one.gone ? "Restore" : "Delete"} box ${words}` },
      one.gone ? "Restore" : "Delete",
    );
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
  if (chosen)
    list.scrollTop = Math.max(
      Math.min(list.scrollTop, chosen.offsetTop - list.offsetTop),
      chosen.offsetTop - list.offsetTop + chosen.offsetHeight - list.clientHeight,
    );
}

function select(index) {
  stopEditing();
  selected = index;
  render();
  const one = recordOf(items[current]).boxes[index];
  sayLater(`Box ${index + 1} of ${recordOf(items[current]).boxes.length}: ${one.label}${one.gone ? ", deleted" : ""}.`);
}

// The large buttons: id, words, whether the decision that it makes is the current one (null: it makes none), and
// whether it is switched off.
function buttonsOf(item, record) {
  const one = record.boxes[selected];
  const isOwn = one?.base === null;
  if (isUnlabelled(item)) {
    const count = record.boxes.filter((each) => !each.gone).length;
    return [
      [
        "suggest",
        count ? `Accept ${count === 1 ? "the box" : `all ${count} boxes`}` : "Accept: no objects",
        record.verdict === "accept",
      ],
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
    change:
      label !== null && label !== item.boxes[0][4]
        ? `Change to ${label}${item.box && !sameBox(item.box, item.boxes[0]) ? " and the model's box" : ""}`
        : "Use the model's box",
  };
  const isBoxSame = sameBox(record.boxes[0].box, item.boxes[0]);
  return [
    ["suggest", suggestions[item.action] ?? "As the model", isSuggested(item, record)],
    ...(isMissing ? [] : [["correct", "Correct", record.verdict === "correct"]]),
    [
      "class",
      isMissing ? "Add, other class…" : "Wrong class…",
      !isMissing &&
        record.verdict === "change" &&
        record.boxes[0].label !== item.boxes[0][4] &&
        !isSuggested(item, record),
    ],
    [
      "box",
      editing ? "Save the box" : isMissing ? "Add, other box" : "Wrong box",
      record.verdict === "change" && !isBoxSame && !isSuggested(item, record),
    ],
    [
      "remove",
      isOwn ? "Delete added box" : "Not an object",
      record.verdict === "none" || (record.verdict === "remove" && item.action !== "remove"),
    ],
    ["draw", "Draw a missing object", drawing],
    ["skip", "Skip", record.verdict === "skip"],
  ];
}

function isSuggested(item, record) {
  if (record.verdict !== item.action) return false;
  const now = record.boxes[0];
  return (
    item.action === "remove" ||
    (now.label === (item.label ?? item.boxes[0][4]) && sameBox(now.box, item.box ?? item.boxes[0]))
  );
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
  const button = make("button", {
    type: "button",
    id: `do-${name}`,
    class: name === "suggest" ? "main" : null,
    "aria-keyshortcuts": key,
  });
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
    if (drawing)
      return () => {
        stopEditing();
        render();
        say("");
      };
    return null;
  }
  if (key === "ArrowLeft") return () => step(-1);
  if (key === "ArrowRight") return () => step(1);
  const boxes = recordOf(items[current]).boxes;
  if ((key === "ArrowUp" || key === "ArrowDown") && boxes.length > 1) {
    return () => select((selected + (key === "ArrowUp" ? boxes.length - 1 : 1)) % boxes.length);
  }
  if (key === "Delete" && (isUnlabelled(items[current]) || selected > 0)) return () => removeBox(selected);
  if (!byId("letters").checked || (event.shiftKey && key !== "?")) return null;
  if (key === "?")
    return () => {
      byId("keys").open = !byId("keys").open;
      byId("keys").scrollIntoView({ block: "nearest" });
    };
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
  const names = [...new Set([...content.classes.map(([name]) => name), ...labels.keys()])].filter((name) =>
    labels.has(name),
  );
  const own = (value, words) => {
    const made = option("", words);
    made.value = value;
    return made;
  };
  byId("by-class").replaceChildren(
    option("", "all"),
    ...names.map((name) => own(name, `${name} (${labels.get(name)})`)),
  );
  const known = Object.keys(KIND_NAMES).filter((kind) => kinds.has(kind));
  byId("by-kind")?.replaceChildren(
    option("", "all"),
    ...known.map((kind) => option(kind, `${KIND_NAMES[kind]} (${kinds.get(kind)})`)),
  );
}

function start() {
  fillFilters();
  restore();
  filterItems();
  if (shown.length && isSettled(items[current])) {
    const open =
      shown.find((index) => index > current && !isSettled(items[index])) ??
      shown.find((index) => !isSettled(items[index]));
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
  stage.addEventListener("pointercancel", () => {
    moving = null;
    render();
  });
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
