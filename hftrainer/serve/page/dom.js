// Elements are made here and nowhere else, from texts that are never read as HTML.

export const byId = (id) => document.getElementById(id);

// `attributes` with a function as value listen to that event: { class: "chip", click: () => ... }.
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== false && value !== null) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

export function button(text, className, click, more = {}) {
  return el("button", { type: "button", class: className, click, ...more }, text);
}

// A button that shows one of the page's icons; `name` is what it is called.
export function iconButton(icon, name, click, more = {}) {
  return el("button", { type: "button", class: "tool", title: name, "aria-label": name, click, ...more }, symbol(icon));
}

function symbol(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#icon-${name}`);
  svg.append(use);
  return svg;
}

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
