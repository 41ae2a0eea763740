"use strict";
// The picture of the current item with its boxes, and how they are moved and drawn.

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
  const near = new Set(
    [current, shown[at + 1], shown[at - 1]].filter((i) => i !== undefined).map((i) => items[i].image),
  );
  for (const image of [...decoded.keys()]) if (!near.has(image)) decoded.delete(image);
  for (const image of near)
    pictureOf(image)
      ?.decode()
      .catch(() => {});
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
    const others = otherLabels(item);
    others.forEach((box) => drawn.push(...lines(box, "other")));
    if (others.length) legend.push(["other", "other labels"]);
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
      legend.unshift(
        isNew ? ["model", "the proposed box"] : ["label", item.kind === "missing" ? "the new box" : "the label's box"],
      );
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

// The boxes of the other labels of the item's image, as they are after what was decided at other suspects.
function otherLabels(item) {
  const boxes = [];
  images[item.image].objects.forEach((object, index) => {
    const made = index === item.object ? { removed: true } : outcome(item.image, index);
    if (!made?.removed) boxes.push(made?.box ?? object.slice(0, 4));
  });
  for (const other of items) {
    if (other.image === item.image && other !== item) boxes.push(...addedBoxes(other).map((one) => one.box));
  }
  return boxes;
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
  const percent = (box) =>
    [box[0] / image.width, box[1] / image.height, box[2] / image.width, box[3] / image.height].map((v) => 100 * v);
  const isMany = record.boxes.length > 20;
  if (!hidden) {
    record.boxes.forEach((one, index) => {
      const isListed = isUnlabelled(items[current]) || index > 0;
      if (one.gone || !isListed || (isMany && index !== selected) || (editing && index === selected)) return;
      const [left, top] = percent(one.box);
      const tag = make(
        "span",
        { class: "tag", "aria-hidden": "true" },
        index === selected ? `${index + 1} ${one.label}` : index + 1,
      );
      tag.style.left = `${Math.max(0, left)}%`;
      tag.style.top = `${Math.max(0, top)}%`;
      made.push(tag);
    });
  }
  const one = record.boxes[selected];
  if (editing && one && !one.gone) {
    const [left, top, right, bottom] = percent(one.box);
    const place = (way) => [
      /w/.test(way) ? left : /e/.test(way) ? right : (left + right) / 2,
      /n/.test(way) ? top : /s/.test(way) ? bottom : (top + bottom) / 2,
    ];
    const body = make("button", {
      type: "button",
      class: "body",
      "data-way": "nwse",
      "aria-label": spoken("nwse", one.box),
    });
    Object.assign(body.style, {
      left: `${left}%`,
      top: `${top}%`,
      width: `${right - left}%`,
      height: `${bottom - top}%`,
    });
    const corners = Object.keys(CORNERS).map((way) => handle(way, place(way), { "aria-label": spoken(way, one.box) }));
    const edges = Object.keys(SIDES).map((way) => {
      return handle(way, place(way), { tabindex: "-1", "aria-label": spoken(way, one.box) }, "edge");
    });
    made.push(...corners, body, ...edges);
    body.style.zIndex = 1;
    edges.forEach((edge) => (edge.style.zIndex = 2));
    corners.forEach((corner) => (corner.style.zIndex = 3));
  }
  if (moving && layer.childElementCount === made.length) {
    // The handle that is dragged must stay, since it has captured the pointer.
    [...layer.children].forEach((old, index) => {
      old.style.cssText = made[index].style.cssText;
      if (made[index].hasAttribute("aria-label"))
        old.setAttribute("aria-label", made[index].getAttribute("aria-label"));
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
  const values = { n: `y ${y1}`, s: `y ${y2}`, e: `x ${x2}`, w: `x ${x1}` };
  if (way in SIDES) return `${SIDES[way]}, ${values[way]}`;
  return `${CORNERS[way]}, ${values[way[1]]}, ${values[way[0]]}`;
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
  return [
    ((event.clientX - frame.left) / frame.width) * image.width,
    ((event.clientY - frame.top) / frame.height) * image.height,
  ];
}

function inside([x, y], image) {
  return [Math.max(0, Math.min(image.width, x)), Math.max(0, Math.min(image.height, y))].map(
    (value) => Math.round(value * 10) / 10,
  );
}

function pointerDown(event) {
  if (event.button !== 0 || !shown.length) return;
  const item = items[current];
  const [x, y] = pointOf(event);
  const way = event.target.dataset?.way;
  moving = {
    way,
    x,
    y,
    box: way ? [...recordOf(item).boxes[selected].box] : null,
    isMoved: false,
    step: `drag ${clock}`,
  };
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
  const pixels = Math.hypot(
    ((x - moving.x) * frame.width) / image.width,
    ((y - moving.y) * frame.height) / image.height,
  );
  if (!moving.isMoved && pixels < 3) return;
  moving.isMoved = true;
  if (moving.way) {
    const box = movedBox(moving.box, moving.way, x - moving.x, y - moving.y, image);
    change((record) => (record.boxes[selected].box = box), moving.step, true);
    renderStage(item, recordOf(item));
    renderVerdicts(item, recordOf(item));
  } else if (drawing) {
    const box = spanned(moving, [x, y], image);
    byId("lines")
      .querySelectorAll(".drawn")
      .forEach((one) => one.remove());
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

// Select the smallest box under a point; again, the next larger one. A click beside all boxes does nothing.
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
