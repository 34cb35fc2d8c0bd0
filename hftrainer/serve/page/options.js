// Length, count, seed and sampling: what a request says besides its texts.

import { button, byId, el } from "./dom.js";

// name: [label, smallest, largest, step, what it does]
const SETTINGS = {
  temperature: ["Temperature", 0, 2, 0.05, "low: typical motions, high: more varied ones"],
  top_p: ["Top-p", 0.05, 1, 0.05, "how much of the likely next poses may be drawn"],
  guidance_scale: ["Guidance", 0, 10, 0.5, "how closely the motion keeps to the text"],
};

export class Options {
  constructor() {
    this.values = {}; // what was moved; the rest is the model's choice
    byId("dice").addEventListener("click", () => (byId("seed").value = Math.floor(Math.random() * 100_000)));
  }

  // Shows the settings that a model has, at its defaults.
  setModel({ sampling = {}, max_seconds: longest, max_count: most }) {
    this.values = {};
    const names = Object.keys(SETTINGS).filter((name) => (sampling[name] ?? null) !== null);
    byId("sampling").hidden = !names.length;
    this.sliders = new Map(names.map((name) => [name, slider(name, sampling[name], this.values)]));
    byId("sliders").replaceChildren(...[...this.sliders.values()].map(({ root }) => root));
    if (longest) byId("seconds").max = longest;
    byId("count").max = most ?? 8;
  }

  // A timeline has its own lengths.
  setTimed(timed) {
    byId("field-seconds").hidden = timed;
  }

  get request() {
    const length = byId("seconds").valueAsNumber;
    const seconds = Number.isFinite(length) ? { seconds: length } : {};
    return { ...seconds, count: whole("count", 1), seed: whole("seed", 0), ...this.values };
  }

  set({ seconds, count, seed, ...sampling }) {
    byId("seconds").value = seconds ?? "";
    byId("count").value = count ?? 1;
    byId("seed").value = seed ?? 0;
    for (const [name, { set }] of this.sliders) set(sampling[name] ?? null);
  }

  // What is wrong, as a sentence.
  get problem() {
    const wrong = ["seconds", "count", "seed"].map(byId).find((field) => field.offsetParent && !field.checkValidity());
    return wrong ? `${wrong.labels[0].firstChild.textContent.trim()}: ${wrong.validationMessage}` : null;
  }
}

const whole = (id, otherwise) => Math.trunc(byId(id).valueAsNumber || otherwise);

function slider(name, usual, values) {
  const [label, min, max, step, about] = SETTINGS[name];
  const id = `slider-${name}`;
  const input = el("input", { id, type: "range", min, max, step, "aria-describedby": `${id}-about`, input: () => set(input.valueAsNumber) });
  const shown = el("output", { for: id });
  const reset = button("model's default", "link", () => set(null), { "aria-label": `${label}: back to the model's default` });
  const set = (value) => {
    if (value === null) delete values[name];
    else values[name] = value;
    input.value = value ?? usual;
    shown.textContent = String(value ?? usual);
    reset.hidden = value === null;
  };
  set(null);
  const head = el("div", { class: "slider-head" }, el("label", { for: id }, label), reset, shown);
  return { set, root: el("div", { class: "slider" }, head, input, el("p", { id: `${id}-about`, class: "hint" }, about)) };
}
