// The viewer: a stage with its labels and controls, kept up to date. It shows the clips that it is given, and may be
// given clips that still grow; what there is to choose from, and everything around it, is the page's business.

import { Bar, MODES } from "./bar.js";
import { Clock } from "./clock.js";
import { Labels } from "./labels.js";
import { inOnePlace, inOneLine, sideBySide } from "./layout.js";
import { Stage2D } from "./stage2d.js";
import { Stage3D } from "./stage3d.js";

export const AT_MOST = 12; // motions shown at once
const SLOW = 0.06; // seconds between pictures
const PATIENCE = 1.5; // seconds of slow pictures
const ACCENTS = ["#6a58c8", "#14775f", "#8d6216", "#b04079", "#1c7182", "#7c5d4a"]; // white on them reads well
const BODY = "#e9e6e1";
const THEMES = {
  light: { floor: "#f3f4f6", line: "#c3c8cf", shadow: 0.22, ambient: 0.95, key: 1.7, outline: "#ffffff" },
  dark: { floor: "#2a2d33", line: "#4a4f59", shadow: 0.5, ambient: 0.6, key: 1.9, outline: "#17181b" },
};

export class Viewer {
  // `root` holds the elements of viewer_stage.html. `page` has functions for what the page does: theme(name) changes
  // its colours, next(step) shows another motion, drawn(seconds) is called after every picture. Its `keys` is the
  // element in which keys steer the player; keys that go nowhere in particular always do.
  constructor(root, page) {
    this.root = root;
    this.page = page;
    this.clock = new Clock();
    this.labels = new Labels(this.part("labels"));
    this.shown = { mode: "body", trail: true, follow: false, contacts: false };
    this.overlaid = false;
    this.followChosen = false; // by the reader, and then not changed for them
    this.stale = true;
    this.slow = 0;
    this.entries = [];
    this.openStage();
    this.bar = new Bar(this.part("bar"), this.clock, this.actions(), page.keys);
    this.setTheme("light");
    new ResizeObserver(() => this.resize()).observe(root);
    this.resize();
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.clock.playing = false;
  }

  part(name) {
    return this.root.querySelector(`[data-part="${name}"]`);
  }

  get clips() {
    return this.entries.map(({ clip }) => clip);
  }

  openStage() {
    const changed = () => (this.stale = true);
    try {
      this.stage = new Stage3D(this.freshCanvas(), changed);
      this.stage.renderer.domElement.addEventListener("webglcontextlost", () => this.fallBack("WebGL has stopped"));
    } catch {
      this.fallBack("This browser offers no WebGL");
    }
  }

  // A canvas keeps the kind of context it was first asked for, so every stage gets its own.
  freshCanvas() {
    const canvas = document.createElement("canvas");
    this.part("picture").replaceChildren(canvas);
    return canvas;
  }

  // The same motions as flat figures; everything but the look stays.
  fallBack(reason) {
    this.stage?.dispose();
    this.stage = new Stage2D(this.freshCanvas(), () => (this.stale = true));
    const notice = this.part("notice");
    notice.textContent = `${reason}, so the motions are drawn as flat figures. Drag to turn, scroll to zoom.`;
    notice.hidden = false;
    if (!this.theme) return; // not yet set up
    this.stage.setTheme(THEMES[this.theme]);
    this.resize();
    this.show(this.clips, { rewind: false });
  }

  // Shows `clips` beside or over each other, from their start.
  show(clips, { rewind = true } = {}) {
    this.rowLength = this.stage.rowLength;
    const offsets = this.placesOf(clips);
    const tinted = this.overlaid && clips.length > 1;
    this.entries = clips.map((clip, slot) => ({ clip, offset: offsets[slot], color: colorsOf(clip, tinted) }));
    const { time } = this.clock;
    this.clock.load(clips);
    if (!rewind) this.clock.seek(time);
    this.stage.setClips(this.entries);
    this.stage.show(this.shown);
    this.stage.update(this.clock.time);
    if (!this.followChosen) {
      this.stage.show(Object.assign(this.shown, { follow: this.clock.growing || this.stage.needsFollowing }));
    }
    this.stage.resetView();
    this.labels.setClips(this.entries);
    this.bar.setClips(clips);
    this.describe(clips);
    this.stale = true;
  }

  // Paths that nobody knows yet are kept apart by a fixed distance.
  placesOf(clips) {
    if (this.overlaid) return inOnePlace(clips);
    return clips.some(({ growing }) => growing) ? inOneLine(clips) : sideBySide(clips, this.rowLength);
  }

  // Some of the clips shown have got more frames, or have got their last.
  grown() {
    const grew = this.clock.growing;
    this.clock.extend(this.clips);
    this.stage.grow();
    this.bar.setClips(this.clips);
    if (grew && !this.clock.growing) this.unsettled = true;
    this.stale = true;
  }

  // Takes `frames` away from the start of a clip that grows without end, unseen by the reader.
  forget(clip, frames) {
    clip.forget(frames);
    this.clock.time = Math.max(0, this.clock.time - frames / clip.fps);
    this.grown();
  }

  // What the picture shows, for those who do not see it.
  describe(clips) {
    const canvas = this.part("picture").firstElementChild;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `Moving figures: ${clips.map(({ title }) => title || "no text").join("; ")}`);
  }

  // A clip's text changes while it plays.
  retitle(clip, title) {
    clip.title = title;
    this.labels.retitle(clip);
    this.describe(this.clips);
    this.stale = true;
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
      overlay: then(() => this.overlay(!this.overlaid)),
      follow: then(() => {
        this.followChosen = true;
        show({ follow: !this.shown.follow });
      }),
      reset: then(() => this.stage.resetView()),
      turn: then((angle) => this.stage.turn(angle)),
      theme: then(() => this.setTheme(this.theme === "light" ? "dark" : "light")),
      next: then((step) => this.page.next(step)),
    };
  }

  play(playing) {
    this.clock.playing = playing;
    this.stale = true;
  }

  seek(seconds) {
    this.clock.seek(seconds);
    this.stale = true;
  }

  // All bodies in one place, each in its own colour, or side by side.
  overlay(overlaid) {
    if (this.clips.length < 2 && overlaid) return;
    this.overlaid = overlaid;
    this.stage.touched = false;
    this.show(this.clips, { rewind: false });
  }

  setTheme(name) {
    this.theme = name;
    this.page.theme(name);
    this.stage.setTheme(THEMES[name]);
    this.stale = true;
  }

  resize() {
    const { clientWidth, clientHeight } = this.root;
    if (!clientWidth || !clientHeight) return;
    this.stage.resize(clientWidth, clientHeight);
    this.stale = true;
    if (!this.entries.length) return;
    this.labels.measure();
    if (this.rowLength !== this.stage.rowLength) this.show(this.clips, { rewind: false });
    else if (!this.stage.touched) this.stage.resetView();
  }

  // One picture. Nothing is drawn while nothing changes: a page may be one of many in a notebook.
  tick(now) {
    const elapsed = Math.min(0.25, (now - (this.before ?? now)) / 1000);
    this.before = now;
    if (!this.entries.length) return;
    this.watchPace(elapsed);
    const before = this.clock.time;
    this.clock.advance(elapsed);
    if (this.unsettled && this.clock.time < before) this.settle();
    this.stage.moveCamera(elapsed); // may say that the picture is stale
    if (!this.stale && !this.clock.playing) return;
    this.stale = false;
    this.stage.update(this.clock.time);
    this.stage.draw();
    this.labels.update(this.stage, this.clock.time);
    this.bar.update({ ...this.shown, overlay: this.overlaid });
    this.page.drawn?.(this.clock.time);
  }

  // Motions that were shown while they were made take the places of complete ones, when they start again.
  settle() {
    this.unsettled = false;
    if (this.clips.length > 1) this.show(this.clips, { rewind: false });
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

// A motion keeps its colour whatever is shown beside it.
function colorsOf(clip, tinted) {
  const accent = clip.color ?? ACCENTS[clip.index % ACCENTS.length];
  return { accent, body: clip.color ?? (tinted ? accent : BODY) };
}
