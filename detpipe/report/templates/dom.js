"use strict";
// What all pages with a script use: the data of the page, and elements whose text is never read as HTML.

// The content of the data block: what `page.render` was given as `data`.
function pageData() {
  return JSON.parse(document.getElementById("page-data").textContent);
}

// Text that can be shown: control characters and those that change the direction of text would hide what a name is.
function plain(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}]/gu, "\ufffd");
}

// An element. attributes: by name; a value of false or null leaves the attribute out, true gives an empty one.
// children: elements, and texts, which stay text whatever they contain.
function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

// The same for an SVG element, which has a namespace of its own.
function makeSvg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : typeof value === "string" ? plain(value) : String(value));
    }
  }
  element.append(...children.map((child) => (child instanceof Node ? child : plain(child))));
  return element;
}
