"use strict";
// The list of classes, from which a person picks one.

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
      byId("options").replaceChildren(
        ...(options.length ? options : [make("li", { role: "presentation" }, "no class has these letters")]),
      );
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
