// The timeline: parts with a text and a length, one after the other, as a list and as a strip to drag.

import { byId, el, iconButton } from "./dom.js";

const SHORTEST = 0.5; // seconds
const STEP = 0.5;

export class Timeline {
  constructor() {
    this.longest = 10;
    this.parts = [];
    byId("part-add").addEventListener("click", () => this.add());
    this.set([
      { prompt: "a person walks forward", seconds: 3 },
      { prompt: "a person waves", seconds: 2 },
    ]);
  }

  set(parts) {
    this.parts = parts.map((part) => ({ ...part }));
    this.render();
  }

  get request() {
    return this.parts.map(({ prompt, seconds }) => ({ prompt: prompt.trim(), seconds }));
  }

  get total() {
    return this.parts.reduce((sum, { seconds }) => sum + seconds, 0);
  }

  // What is wrong with it, as a sentence.
  get problem() {
    const empty = this.parts.findIndex(({ prompt }) => !prompt.trim());
    if (empty >= 0) return `Part ${empty + 1} has no text.`;
    const short = this.parts.findIndex(({ seconds }) => !(seconds >= SHORTEST));
    if (short >= 0) return `Part ${short + 1} needs a length of at least ${SHORTEST} s.`;
    return null;
  }

  add() {
    this.parts.push({ prompt: "", seconds: 2 });
    this.render();
    byId("parts").lastElementChild.querySelector("input").focus();
  }

  remove(index) {
    this.parts.splice(index, 1);
    this.render();
    byId("parts").children[Math.min(index, this.parts.length - 1)].querySelector("input").focus();
  }

  move(index, step) {
    const [part] = this.parts.splice(index, 1);
    this.parts.splice(index + step, 0, part);
    this.render();
    const tools = byId("parts").children[index + step].querySelectorAll("button");
    [...tools].find((tool) => !tool.disabled && tool.dataset.step === String(step))?.focus();
  }

  render() {
    byId("parts").replaceChildren(...this.parts.map((part, index) => this.row(part, index)));
    this.renderStrip();
  }

  row(part, index) {
    const name = `part ${index + 1}`;
    const text = el("input", {
      type: "text", "aria-label": `Text of ${name}`, placeholder: "what happens here", autocomplete: "off",
      input: () => ((part.prompt = text.value), this.renderStrip()),
    });
    text.value = part.prompt;
    const length = el("input", {
      type: "number", min: SHORTEST, max: this.longest, step: STEP, "aria-label": `Seconds of ${name}`, inputmode: "decimal",
      input: () => ((part.seconds = Number(length.value)), this.renderStrip()),
    });
    length.value = part.seconds;
    part.field = length;
    const last = this.parts.length - 1;
    return el("li", { class: "part" },
      el("span", { class: "part-number", "data-part-index": index }, String(index + 1)),
      text,
      el("span", { class: "unit" }, length, el("span", {}, "s")),
      iconButton("up", `Move ${name} up`, () => this.move(index, -1), { disabled: index === 0, "data-step": -1 }),
      iconButton("down", `Move ${name} down`, () => this.move(index, 1), { disabled: index === last, "data-step": 1 }),
      iconButton("remove", `Remove ${name}`, () => this.remove(index), { disabled: last === 0 }),
    );
  }

  // Blocks as wide as they are long; each ends in a handle.
  renderStrip() {
    const blocks = this.parts.flatMap((part, index) => {
      const block = el("span", { class: "block", title: part.prompt }, part.prompt || "\u2026");
      block.style.setProperty("flex-grow", String(Math.max(part.seconds || 0, 0.2)));
      return [block, this.handle(part, index)];
    });
    const head = el("span", { class: "playhead", hidden: true });
    byId("strip").replaceChildren(...blocks, head);
    this.sum();
  }

  sum() {
    byId("parts-total").textContent = `${this.total.toFixed(1)} s in total`;
  }

  handle(part, index) {
    const handle = el("span", {
      class: "handle", role: "slider", tabindex: 0, "aria-label": `Length of part ${index + 1}`, "aria-valuemin": SHORTEST,
      "aria-valuemax": this.longest, pointerdown: (event) => this.drag(event, part, handle),
      keydown: (event) => {
        const change = { ArrowLeft: -STEP, ArrowDown: -STEP, ArrowRight: STEP, ArrowUp: STEP }[event.key];
        if (!change) return;
        event.preventDefault();
        this.stretch(part, part.seconds + change, handle);
      },
    });
    this.describe(part, handle);
    return handle;
  }

  // While it is dragged a second keeps the width that it had at the start.
  drag(event, part, handle) {
    event.preventDefault();
    handle.focus();
    handle.setPointerCapture(event.pointerId);
    const [from, before] = [event.clientX, part.seconds];
    const second = byId("strip").clientWidth / Math.max(this.total, 1);
    const move = ({ clientX }) => this.stretch(part, before + (clientX - from) / second, handle);
    const end = () => handle.removeEventListener("pointermove", move);
    handle.addEventListener("pointermove", move);
    handle.addEventListener("pointerup", end, { once: true });
    handle.addEventListener("pointercancel", end, { once: true });
  }

  stretch(part, seconds, handle) {
    const rounded = Math.round(seconds / STEP) * STEP;
    part.seconds = Math.min(this.longest, Math.max(SHORTEST, rounded));
    part.field.value = part.seconds;
    handle.previousElementSibling.style.setProperty("flex-grow", String(part.seconds));
    this.describe(part, handle);
    this.sum();
  }

  describe({ seconds }, handle) {
    handle.setAttribute("aria-valuenow", String(seconds));
    handle.setAttribute("aria-valuetext", `${seconds} seconds`);
  }

  // Whether its parts are as long as those.
  lasts(parts) {
    return parts.length === this.parts.length && parts.every(({ seconds }, i) => seconds === this.parts[i].seconds);
  }

  // Where in the strip the motion that plays is; null where it is another one.
  playAt(seconds) {
    const head = byId("strip").querySelector(".playhead");
    head.hidden = seconds === null;
    if (seconds !== null) head.style.setProperty("left", `${Math.min(100, (100 * seconds) / this.total)}%`);
  }
}
