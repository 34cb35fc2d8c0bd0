// The page: reads its data, sets up the stage and its controls, and keeps the picture up to date.
//
// document.body.dataset.state is "playing" from the first picture on, "fallback" without WebGL, "error: ..." where the
// page could not start. `motionViewer` steers it from a script.

import { Bar, MODES } from "./bar.js";
import { Clip } from "./clip.js";
import { Clock } from "./clock.js";
import { Labels } from "./labels.js";
import { sideBySide } from "./layout.js";
import { readMoment, writeMoment } from "./moment.js";
import { Panel } from "./panel.js";
import { Stage2D } from "./stage2d.js";
import { Stage3D } from "./stage3d.js";

const AT_FIRST = 6; // motions shown when the page opens
const AT_MOST = 12;
const SLOW = 0.06; // seconds between pictures
const PATIENCE = 1.5; // seconds of slow pictures
const ACCENTS = ["#7a68d8", "#1d9a7b", "#c2892b", "#c4568f", "#2793a8", "#8a6b55"];
const BODY = "#e9e6e1";
const THEMES = {
  light: { floor: "#f3f4f6", line: "#c3c8cf", shadow: 0.22, ambient: 0.95, key: 1.7, outline: "#ffffff" },
  dark: { floor: "#2a2d33", line: "#4a4f59", shadow: 0.5, ambient: 0.6, key: 1.9, outline: "#17181b" },
};

class Viewer {
  constructor({ title, clips }) {
    this.clips = clips.map((packed, index) => new Clip(packed, index));
    this.clock = new Clock();
    this.labels = new Labels(byId("labels"));
    this.panel = new Panel(byId("panel"), this.clips, title, (index, add) => this.choose(index, add));
    this.shown = { mode: "body", trail: true, follow: false, contacts: false };
    this.followChosen = false; // by the reader, and then not changed for them
    this.stale = true;
    this.slow = 0;
    this.openStage();
    this.bar = new Bar(byId("bar"), this.clock, this.actions());
    this.listen();
    this.setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    this.resize();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.clock.playing = false;
    this.openAt(readMoment(location.hash, this.clips.length));
  }

  // What the address asks for, or the first motions (of a comparison, the first group).
  openAt(moment) {
    const atFirst = innerWidth < 600 ? AT_FIRST - 2 : AT_FIRST;
    const first = this.clips[0]?.group ? this.together(0) : this.clips.slice(0, atFirst).map(({ index }) => index);
    this.select((moment?.shown ?? first).slice(0, AT_MOST));
    if (!moment) return;
    this.clock.playing = false;
    this.clock.seek(moment.time);
  }

  // A motion with those that it is compared with.
  together(index) {
    const { group } = this.clips[index];
    return group ? this.clips.filter((clip) => clip.group === group).map((clip) => clip.index) : [index];
  }

  openStage() {
    const changed = () => (this.stale = true);
    try {
      this.stage = new Stage3D(freshCanvas(), changed);
      this.stage.renderer.domElement.addEventListener("webglcontextlost", () => this.fallBack("WebGL has stopped"));
    } catch {
      this.fallBack("This browser offers no WebGL");
    }
  }

  // The same motions as flat figures; everything but the look stays.
  fallBack(reason) {
    this.stage?.dispose();
    this.stage = new Stage2D(freshCanvas(), () => (this.stale = true));
    byId("notice").textContent = `${reason}, so the motions are drawn as flat figures. Drag to turn, scroll to zoom.`;
    byId("notice").hidden = false;
    document.body.dataset.state = "fallback";
    if (!this.entries) return;
    this.stage.setTheme(THEMES[this.theme]);
    this.resize();
    this.select(this.entries.map(({ clip }) => clip.index), { rewind: false });
  }

  // Shows the motions with these numbers (from 0) side by side, from their start.
  select(indices, { rewind = true } = {}) {
    const clips = indices.map((index) => this.clips[index]);
    this.rowLength = this.stage.rowLength;
    const offsets = sideBySide(clips, this.rowLength);
    this.entries = clips.map((clip, slot) => ({ clip, offset: offsets[slot], color: colorsOf(clip) }));
    const { time } = this.clock;
    this.clock.load(clips);
    if (!rewind) this.clock.seek(time);
    this.stage.setClips(this.entries);
    this.stage.show(this.shown);
    this.stage.update(this.clock.time);
    if (!this.followChosen) this.stage.show(Object.assign(this.shown, { follow: this.stage.needsFollowing }));
    this.stage.resetView();
    this.labels.setClips(this.entries);
    this.panel.mark(this.entries);
    this.bar.setClips(clips);
    this.describe(clips);
    this.stale = true;
  }

  // What the picture shows, for those who do not see it.
  describe(clips) {
    const canvas = byId("picture").firstElementChild;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Moving figures: ${clips.map(({ title }) => title || "no text").join("; ")}`);
  }

  choose(index, add) {
    const now = this.entries.map(({ clip }) => clip.index);
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
    const shown = new Set(this.entries.map(({ clip }) => clip.index));
    let here = listed.indexOf(this.entries[0].clip.index);
    do here = (here + step + listed.length) % listed.length;
    while (shown.has(listed[here]) && shown.size > 1 && listed.some((index) => !shown.has(index)));
    const there = listed[here];
    this.select(this.together(there));
    this.panel.reveal(there);
  }

  actions() {
    const { clock } = this;
    const then = (action) => (...given) => {
      action(...given);
      this.stale = true;
    };
    const show = (changed) => this.stage.show(Object.assign(this.shown, changed));
    return {
      play: then(() => clock.toggle()),
      step: then((frames) => clock.step(frames)),
      seek: then((seconds) => clock.seek(seconds)),
      speed: then((speed) => (clock.speed = speed)),
      loop: then(() => (clock.loop = !clock.loop)),
      mode: then(() => show({ mode: MODES[(MODES.indexOf(this.shown.mode) + 1) % MODES.length] })),
      trail: then(() => show({ trail: !this.shown.trail })),
      contacts: then(() => show({ contacts: !this.shown.contacts })),
      follow: then(() => {
        this.followChosen = true;
        show({ follow: !this.shown.follow });
      }),
      reset: then(() => this.stage.resetView()),
      theme: then(() => this.setTheme(this.theme === "light" ? "dark" : "light")),
      next: then((step) => this.next(step)),
    };
  }

  // What a script may ask for.
  remote() {
    const { seek } = this.actions();
    const play = (playing) => () => {
      this.clock.playing = playing;
      this.stale = true;
    };
    const select = (indices) => {
      const known = indices.filter((index) => this.clips[index]);
      if (known.length) this.select(known.slice(0, AT_MOST));
    };
    return { play: play(true), pause: play(false), seek, select };
  }

  setTheme(name) {
    this.theme = name;
    document.documentElement.dataset.theme = name;
    this.stage.setTheme(THEMES[name]);
  }

  listen() {
    new ResizeObserver(() => this.resize()).observe(byId("stage"));
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

  resize() {
    const { clientWidth, clientHeight } = byId("stage");
    if (!clientWidth || !clientHeight) return;
    this.stage.resize(clientWidth, clientHeight);
    if (this.entries) this.labels.measure();
    if (this.entries && this.rowLength !== this.stage.rowLength) {
      this.select(this.entries.map(({ clip }) => clip.index), { rewind: false });
    } else if (this.entries && !this.stage.touched) this.stage.resetView();
    this.stale = true;
  }

  // One picture. Nothing is drawn while nothing changes: a page may be one of many in a notebook.
  tick(now) {
    const elapsed = Math.min(0.25, (now - (this.before ?? now)) / 1000);
    this.before = now;
    this.watchPace(elapsed);
    this.clock.advance(elapsed);
    this.stage.moveCamera(elapsed); // may say that the picture is stale
    if (!this.stale && !this.clock.playing) return;
    this.stale = false;
    this.stage.update(this.clock.time);
    this.stage.draw();
    if (!this.clock.playing) writeMoment(this.entries.map(({ clip }) => clip.index), this.clock.time);
    this.labels.update(this.stage, this.clock.time);
    this.bar.update(this.shown);
    const { dataset } = document.body;
    if (!dataset.state.startsWith("error")) dataset.state = this.stage.kind === "3d" ? "playing" : "fallback";
  }

  // Without a graphics card a picture may take a second: after some of those, make it a simpler one.
  watchPace(elapsed) {
    this.slow = this.clock.playing && elapsed > SLOW ? this.slow + elapsed : 0;
    if (this.slow < PATIENCE) return;
    this.slow = 0;
    if (this.stage.economize()) this.stale = true;
  }

  run() {
    const loop = (now) => {
      this.tick(now);
      requestAnimationFrame(loop);
    };
    requestAnimationFrame(loop);
  }
}

function byId(id) {
  return document.getElementById(id);
}

// A canvas keeps the kind of context it was first asked for, so every stage gets its own.
function freshCanvas() {
  const canvas = document.createElement("canvas");
  byId("picture").replaceChildren(canvas);
  return canvas;
}

// A motion keeps its colour whatever is shown beside it.
function colorsOf(clip) {
  return { accent: clip.color ?? ACCENTS[clip.index % ACCENTS.length], body: clip.color ?? BODY };
}

function fail(error) {
  document.body.dataset.state = `error: ${error?.message ?? error}`;
  byId("notice").textContent = `The motions cannot be shown: ${error?.message ?? error}`;
  byId("notice").hidden = false;
}

addEventListener("error", ({ error, message }) => {
  if (!/^ResizeObserver/.test(message)) fail(error ?? message); // that one only says that a resize took two turns
});
try {
  const viewer = new Viewer(JSON.parse(byId("motions").textContent));
  viewer.run();
  globalThis.motionViewer = viewer.remote();
} catch (error) {
  fail(error);
}
