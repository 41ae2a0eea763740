"use strict";
// Boxes with captions over a picture, as SVG in the pixels of the image. Captions stay in the picture and keep apart.

const CAPTION_FONT = '600 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
const CAPTION_HEIGHT = 16;
const CAPTION_PADDING = 4;

// Draw boxes into an <svg>. size: [width, height] of the image. scale: pixels of the screen in a pixel of the image.
// boxes: {box: [x1, y1, x2, y2], colour, kind, caption}, the most important first; kind: "detection", "object" or
// "proposal"; a caption may be "".
function drawBoxes(svg, size, boxes, scale) {
  svg.setAttribute("viewBox", `0 0 ${size[0]} ${size[1]}`);
  const frames = boxes.map((one) => clippedBox(one.box, size));
  const taken = [];
  const captions = boxes.map((one, i) => one.caption && caption(one, frames[i], size, scale, taken)).filter(Boolean);
  // What is drawn later is on top.
  const rectangles = boxes.flatMap((one, i) => rectangle(one, frames[i])).reverse();
  svg.replaceChildren(...rectangles, ...captions);
}

function clippedBox([x1, y1, x2, y2], [width, height]) {
  const inside = (value, most) => Math.min(Math.max(value, 0), most);
  return [inside(x1, width), inside(y1, height), inside(x2, width), inside(y2, height)];
}

// The box with a dark edge below it, so that it is visible on any picture.
function rectangle(one, [x1, y1, x2, y2]) {
  const place = { x: x1, y: y1, width: x2 - x1, height: y2 - y1 };
  const line = makeSvg("rect", { ...place, class: `box ${one.kind}`, stroke: one.colour });
  return one.kind === "proposal" ? [line] : [line, makeSvg("rect", { ...place, class: `edge ${one.kind}` })];
}

// The text on a plate of the box's colour; null if there is no room for it. taken: the places of the others.
function caption(one, frame, size, scale, taken) {
  const most = size[0] * scale - 2 * CAPTION_PADDING;
  const text = shortened(plain(one.caption), most);
  if (!text) {
    return null;
  }
  const width = (textWidth(text) + 2 * CAPTION_PADDING) / scale;
  const height = CAPTION_HEIGHT / scale;
  const place = captionPlaces(frame, width, height, size[0]).find((at) => isFree(at, size, taken));
  if (!place) {
    return null;
  }
  taken.push(place);
  const label = makeSvg(
    "text",
    { x: place[0] + CAPTION_PADDING / scale, y: place[1] + (12 / 16) * height, "font-size": 12 / scale },
    text,
  );
  label.setAttribute("fill", readableOn(one.colour));
  const plate = makeSvg("rect", { x: place[0], y: place[1], width, height, fill: one.colour });
  return makeSvg("g", { class: "caption" }, plate, label);
}

// Where a caption may be, the best first, as [x1, y1, x2, y2]: above the box, inside it, below it, beside it.
function captionPlaces([x1, y1, x2, y2], width, height, imageWidth) {
  // Above, inside and below, a caption that would leave the picture at a side is moved into it.
  const aligned = [x1, x2 - width].map((x) => Math.min(Math.max(x, 0), imageWidth - width));
  const places = [y1 - height, y1, y2, y2 - height].flatMap((y) => aligned.map((x) => [x, y]));
  places.push([x2, y1], [x1 - width, y1], [x2, y2 - height], [x1 - width, y2 - height]);
  return places.map(([x, y]) => [x, y, x + width, y + height]);
}

function isFree([x1, y1, x2, y2], [width, height], taken) {
  const near = 1e-6;
  const inside = x1 >= -near && y1 >= -near && x2 <= width + near && y2 <= height + near;
  return inside && taken.every((other) => x1 >= other[2] || x2 <= other[0] || y1 >= other[3] || y2 <= other[1]);
}

// The text, with an ellipsis if it is wider than `most`; "" if not even one letter fits.
function shortened(text, most) {
  if (textWidth(text) <= most) {
    return text;
  }
  const letters = Array.from(text).slice(0, 200);
  while (letters.length && textWidth(letters.join("") + "…") > most) {
    letters.pop();
  }
  return letters.length ? letters.join("").trimEnd() + "…" : "";
}

let measuring = null;

// A canvas measures text without a layout of the page.
function textWidth(text) {
  measuring = measuring || document.createElement("canvas").getContext("2d");
  measuring.font = CAPTION_FONT;
  return measuring.measureText(text).width;
}

// Black or white, whichever has more contrast on a colour "#rrggbb": at least 4.5 to 1 on any.
function readableOn(colour) {
  const [red, green, blue] = [1, 3, 5].map((i) => linear(parseInt(colour.slice(i, i + 2), 16) / 255));
  const luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  return (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) ? "#000000" : "#ffffff";
}

function linear(value) {
  return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
}
