// The offline page: a viewer beside the list of all motions that the page holds.
//
// document.body.dataset.state is "playing" from the first picture on, "fallback" without WebGL, "error: ..." where the
// page could not start. `motionViewer` steers it from a script.

import { Clip } from "./clip.js";
import { readMoment, writeMoment } from "./moment.js";
import { Panel } from "./panel.js";
import { AT_MOST, Viewer } from "./viewer.js";

const AT_FIRST = 6; // motions shown when the page opens

class OfflinePage {
  constructor({ title, clips }) {
    this.clips = clips.map((packed, index) => new Clip(packed, index));
    this.panel = new Panel(byId("panel"), this.clips, title, (index, add) => this.choose(index, add));
    this.viewer = new Viewer(byId("stage"), {
      keys: document.body,
      theme: (name) => (document.documentElement.dataset.theme = name),
      next: (step) => this.next(step),
      drawn: () => this.drawn(),
    });
    this.viewer.setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    this.listen();
    this.openAt(readMoment(location.hash, this.clips.length));
    this.viewer.run();
  }

  // What the address asks for, or the first motions (of a comparison, the first group).
  openAt(moment) {
    const atFirst = innerWidth < 600 ? AT_FIRST - 2 : AT_FIRST;
    const first = this.clips[0]?.group ? this.together(0) : this.clips.slice(0, atFirst).map(({ index }) => index);
    this.select((moment?.shown ?? first).slice(0, AT_MOST));
    if (!moment) return;
    this.viewer.clock.playing = false;
    this.viewer.clock.seek(moment.time);
  }

  // A motion with those that it is compared with.
  together(index) {
    const { group } = this.clips[index];
    return group ? this.clips.filter((clip) => clip.group === group).map((clip) => clip.index) : [index];
  }

  get shown() {
    return this.viewer.clips.map(({ index }) => index);
  }

  // Shows the motions with these numbers (from 0) side by side, from their start.
  select(indices) {
    this.viewer.show(indices.map((index) => this.clips[index]));
    this.panel.mark(this.viewer.entries);
  }

  choose(index, add) {
    const now = this.shown;
    if (!add) {
      this.select(this.together(index));
      if (innerWidth <= 760) this.togglePanel(false); // there it covers the picture
    } else if (!now.includes(index)) this.select([...now, index].slice(-AT_MOST).sort((a, b) => a - b));
    else if (now.length > 1) this.select(now.filter((other) => other !== index));
  }

  // The motion after or before the one shown, among those that the search leaves.
  next(step) {
    const { listed } = this.panel;
    if (!listed.length) return;
    const shown = new Set(this.shown);
    let here = listed.indexOf(this.shown[0]);
    do here = (here + step + listed.length) % listed.length;
    while (shown.has(listed[here]) && shown.size > 1 && listed.some((index) => !shown.has(index)));
    const there = listed[here];
    this.select(this.together(there));
    this.panel.reveal(there);
  }

  drawn() {
    const { clock, stage } = this.viewer;
    if (!clock.playing) writeMoment(this.shown, clock.time);
    const { dataset } = document.body;
    if (!dataset.state.startsWith("error")) dataset.state = stage.kind === "3d" ? "playing" : "fallback";
  }

  // What a script may ask for.
  remote() {
    const { viewer } = this;
    const select = (indices) => {
      const known = indices.filter((index) => this.clips[index]);
      if (known.length) this.select(known.slice(0, AT_MOST));
    };
    return { play: () => viewer.play(true), pause: () => viewer.play(false), seek: (seconds) => viewer.seek(seconds), select };
  }

  listen() {
    // After a click the keys go to the player again; who comes with the tab key keeps the place.
    addEventListener("click", ({ detail, target }) => detail && target.closest?.("button")?.blur());
    byId("panel-button").addEventListener("click", () => this.togglePanel());
    byId("panel-close").addEventListener("click", () => this.togglePanel(false));
    this.togglePanel(innerWidth >= 860 && innerHeight >= 420);
  }

  togglePanel(open = !document.body.classList.contains("with-panel")) {
    document.body.classList.toggle("with-panel", open);
    byId("panel-button").setAttribute("aria-expanded", String(open));
  }
}

function byId(id) {
  return document.getElementById(id);
}

function fail(error) {
  document.body.dataset.state = `error: ${error?.message ?? error}`;
  const notice = document.querySelector("[data-part=notice]");
  notice.textContent = `The motions cannot be shown: ${error?.message ?? error}`;
  notice.hidden = false;
}

export function openPage(data) {
  addEventListener("error", ({ error, message }) => {
    if (!/^ResizeObserver/.test(message)) fail(error ?? message); // that one only says that a resize took two turns
  });
  try {
    globalThis.motionViewer = new OfflinePage(JSON.parse(data)).remote();
  } catch (error) {
    fail(error);
  }
}
