// The viewer, what is shown in it, and the line above it that says so.

import { button, byId, el, iconButton } from "./dom.js";
import { standing } from "./standing.js";

const { GrowingClip, Viewer } = globalThis.hftrainerViewer;
const AT_MOST = 6;

export class Player {
  // `on` is called with shown(motions), drawn(motions, seconds), next(step), download(motion).
  constructor(on) {
    this.on = on;
    this.motions = [];
    const stage = byId("stage");
    this.viewer = new Viewer(stage, {
      keys: byId("player"),
      theme: (name) => (document.documentElement.dataset.theme = name),
      next: (step) => on.next(step),
      drawn: (seconds) => on.drawn(this.motions, seconds),
    });
    this.viewer.show([standing(GrowingClip)]); // a figure before the first motion
    this.viewer.run();
  }

  // Plays these motions from their start; those without frames join when the first come.
  play(motions) {
    this.motions = motions.slice(-AT_MOST);
    this.refresh();
  }

  // Beside what is shown, or no more.
  toggle(motion) {
    const others = this.motions.filter((other) => other !== motion);
    if (others.length === this.motions.length) others.push(motion);
    this.play(others.sort((a, b) => a.number - b.number));
  }

  get playable() {
    return this.motions.filter(({ clip }) => clip?.frames);
  }

  refresh({ rewind = true } = {}) {
    const clips = this.playable.map(({ clip }) => clip);
    if (clips.length) byId("welcome").hidden = true;
    if (clips.length < 2) this.viewer.overlaid = false;
    if (clips.length) this.viewer.show(clips, { rewind });
    this.describe();
    this.on.shown(this.motions);
  }

  // A motion has more frames, or its last.
  grown(motion) {
    if (!this.motions.includes(motion) || !motion.clip.frames) return;
    if (this.viewer.clips.includes(motion.clip)) this.viewer.grown();
    else this.refresh({ rewind: this.viewer.clips.every((clip) => !this.playable.some((other) => other.clip === clip)) });
    this.describe();
  }

  describe() {
    const [motion, ...more] = this.motions;
    byId("stage").classList.toggle("single", Boolean(motion && !more.length && motion.job && !motion.job.request.timeline));
    byId("now").hidden = !motion;
    if (!motion) return;
    const same = more.every(({ prompt }) => prompt === motion.prompt);
    byId("now-title").textContent = same ? motion.prompt || "(no text)" : `${this.motions.length} motions`;
    byId("now-facts").textContent = more.length ? (same ? `${this.motions.length} motions` : "") : facts(motion);
    byId("now-actions").replaceChildren(...(more.length ? this.comparing() : this.single(motion)));
  }

  single(motion) {
    return hasFiles(motion) ? [button("Download", "quiet", () => this.on.download(motion))] : [];
  }

  comparing() {
    const way = (text, overlaid) =>
      button(text, "segment", () => {
        this.viewer.overlay(overlaid);
        this.describe();
      }, { "aria-pressed": String(this.viewer.overlaid === overlaid) });
    const done = iconButton("remove", "Show only the last", () => this.play(this.motions.slice(-1)));
    return [el("span", { class: "segments" }, way("Side by side", false), way("Overlaid", true)), done];
  }
}

export function hasFiles({ made }) {
  return Object.keys(made?.files ?? {}).length > 0;
}

export function facts({ clip, made, seed }) {
  const seconds = made?.seconds ?? clip?.duration ?? 0;
  return `${seconds.toFixed(1)} s${clip?.growing ? " so far" : ""}${seed === null ? "" : ` \u00b7 seed ${seed}`}`;
}
