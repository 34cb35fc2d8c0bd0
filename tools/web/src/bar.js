// The controls below the picture: play, scrub, speed and what is shown. Keys do the same.

import { element } from "./labels.js";

const TURN = Math.PI / 12;
const SPEEDS = [0.25, 0.5, 1, 1.5, 2];
export const MODES = ["body", "bones", "both"];
const MODE_NAMES = { body: "Body", bones: "Skeleton", both: "Both" };

export class Bar {
  // `act` has one function for everything a reader can ask for; see viewer.js. Keys count inside the element `keys`.
  constructor(root, clock, act, keys) {
    this.clock = clock;
    this.keys = keys;
    this.find = (name) => root.querySelector(`[data-part="${name}"]`);
    const press = (name, action) => this.find(name).addEventListener("click", action);
    press("play", act.play);
    press("back", () => act.step(-1));
    press("on", () => act.step(1));
    press("loop", act.loop);
    press("mode", act.mode);
    press("trail", act.trail);
    press("contacts", act.contacts);
    press("overlay", act.overlay);
    press("follow", act.follow);
    press("reset", act.reset);
    press("theme", act.theme);
    this.scrub = this.find("scrub");
    this.scrub.addEventListener("input", () => act.seek(Number(this.scrub.value)));
    this.speed = this.find("speed");
    this.speed.replaceChildren(...SPEEDS.map((speed) => new Option(`${speed}\u00d7`, String(speed))));
    this.speed.addEventListener("change", () => act.speed(Number(this.speed.value)));
    addEventListener("keydown", (event) => this.key(event, act));
  }

  setClips(clips) {
    this.find("overlay").hidden = clips.length < 2;
    this.find("contacts").hidden = !clips.some(({ contacts }) => contacts);
    this.scrub.max = String(this.clock.end);
    const ends = clips.filter(({ duration }) => duration < this.clock.end - 1e-6).map(({ duration }) => duration);
    const ticks = [...new Set(ends)].map((end) => {
      const tick = element("span", "tick");
      tick.style.left = `${(100 * end) / this.clock.end}%`;
      tick.title = `a motion ends at ${end.toFixed(2)} s`;
      return tick;
    });
    this.find("ticks").replaceChildren(...ticks);
  }

  update({ mode, trail, follow, contacts, overlay }) {
    const { clock } = this;
    this.scrub.value = String(clock.time);
    this.scrub.style.setProperty("--done", `${(100 * clock.time) / clock.end}%`);
    this.scrub.setAttribute("aria-valuetext", `${clock.time.toFixed(2)} seconds`);
    this.write("time", `${clock.time.toFixed(2)} / ${clock.end.toFixed(2)} s`);
    this.write("frame", `frame ${clock.frame + 1} / ${clock.frames}`);
    this.press("play", clock.playing);
    this.press("loop", clock.loop);
    this.press("trail", trail);
    this.press("contacts", contacts);
    this.press("overlay", overlay);
    this.press("follow", follow);
    this.write("mode-name", MODE_NAMES[mode]);
    this.speed.value = String(clock.speed);
  }

  write(name, text) {
    const part = this.find(name);
    if (part.textContent !== text) part.textContent = text;
  }

  press(name, on) {
    const part = this.find(name);
    if (part.getAttribute("aria-pressed") !== String(on)) part.setAttribute("aria-pressed", String(on));
  }

  key(event, act) {
    const on = (selector) => event.target instanceof Element && event.target.closest(selector);
    if (event.target !== document.body && !this.keys.contains(event.target)) return;
    if (on("input:not([type=range]), textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (on("button, a") && event.key === " ") return; // presses the button
    const jump = event.shiftKey ? 10 : 1;
    const actions = {
      " ": act.play, ArrowLeft: () => act.step(-jump), ArrowRight: () => act.step(jump),
      Home: () => act.seek(0), End: () => act.seek(this.clock.end),
      "-": () => this.shiftSpeed(-1, act), "+": () => this.shiftSpeed(1, act), "=": () => this.shiftSpeed(1, act),
      l: act.loop, b: act.mode, t: act.trail, c: act.contacts, f: act.follow, r: act.reset, o: act.overlay,
      "[": () => act.turn(-TURN), "]": () => act.turn(TURN), n: () => act.next(1), p: () => act.next(-1),
    };
    const action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }

  shiftSpeed(places, act) {
    const now = SPEEDS.indexOf(this.clock.speed);
    act.speed(SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, now + places))]);
  }
}
