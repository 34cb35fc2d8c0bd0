// Where a motion is described: the three ways, the button, and what became of it.

import { button, byId, el, plural } from "./dom.js";
import { Options } from "./options.js";
import { Tabs } from "./tabs.js";
import { Timeline } from "./timeline.js";
import { Vocabulary, chips, sentence } from "./words.js";

export class Composer {
  // `on`: make(request), cancel(), say(text) in live mode.
  constructor(on) {
    this.on = on;
    this.options = new Options();
    this.timeline = new Timeline();
    this.vocabulary = new Vocabulary((verb) => this.addWords(sentence(verb)));
    this.tabs = new Tabs(["prompt", "timeline", "live"], (name) => this.changed(name));
    byId("make").addEventListener("click", () => this.make());
    byId("cancel").addEventListener("click", () => on.cancel());
    byId("prompt").addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      this.make();
    });
    addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.target.id === "prompt") return;
      if (this.tabs.chosen !== "live") this.make();
    });
  }

  changed(name) {
    const live = name === "live";
    byId("options").hidden = byId("action").hidden = live;
    this.options.setTimed(name === "timeline");
    this.warn(null);
  }

  setModel(model) {
    this.options.setModel(model);
    this.timeline.longest = model.max_seconds ?? this.timeline.longest;
    const examples = (model.examples ?? []).slice(0, 4);
    byId("examples").replaceChildren(...chips(examples, (text) => this.setPrompt(text)));
    byId("live-examples").replaceChildren(...chips(examples, (text) => this.on.say(text)));
  }

  setPrompt(text) {
    this.tabs.choose("prompt");
    byId("prompt").value = text;
    byId("prompt").focus();
  }

  addWords(words) {
    const now = byId("prompt").value.trim();
    this.setPrompt(now ? `${now} and ${words.replace(/^a person /, "")}` : words);
  }

  // Fills everything in as it was for an earlier request.
  set({ prompt, prompts, timeline, model, ...options }) {
    if (timeline) {
      this.timeline.set(timeline);
      this.tabs.choose("timeline");
      byId("tab-timeline").focus();
    } else this.setPrompt((prompts ?? [prompt]).join("\n"));
    this.options.set(options);
  }

  get request() {
    const options = this.options.request;
    if (this.tabs.chosen === "timeline") {
      delete options.seconds;
      return { timeline: this.timeline.request, ...options };
    }
    const prompts = byId("prompt").value.split("\n").map((line) => line.trim()).filter(Boolean);
    return prompts.length > 1 ? { prompts, ...options } : { prompt: prompts[0] ?? "", ...options };
  }

  get problem() {
    if (this.tabs.chosen === "timeline" && this.timeline.problem) return this.timeline.problem;
    if (this.tabs.chosen === "prompt" && !byId("prompt").value.trim()) return "Type what the person does first.";
    return this.options.problem;
  }

  make() {
    if (byId("make").hidden) return; // one at a time
    const { problem } = this;
    this.warn(null);
    this.say(problem ?? "");
    if (!problem) this.on.make(this.request);
    else if (this.tabs.chosen === "prompt") byId("prompt").focus();
  }

  say(text) {
    byId("status").textContent = text;
  }

  // While something is made its button is the one that stops it, and keeps the focus.
  setBusy(busy) {
    const focused = [byId("make"), byId("cancel")].includes(document.activeElement);
    byId("make").hidden = busy;
    byId("cancel").hidden = byId("progress").hidden = !busy;
    if (!busy) byId("progress").value = 0;
    if (focused) byId(busy ? "cancel" : "make").focus();
  }

  // The job's progress; read aloud only when it enters a new stage.
  follow(job) {
    const bar = byId("progress");
    if (job.progress) bar.value = job.progress;
    else bar.removeAttribute("value"); // its length is not known
    const text = stage(job);
    if (byId("status").textContent !== text) this.say(text);
  }

  // Prompts that the model has hardly seen, and what it has seen instead; with null, nothing.
  warn(motion) {
    const box = byId("warning");
    const notes = motion?.made?.warnings ?? [];
    box.hidden = !motion || (motion.known !== false && !notes.length);
    if (box.hidden) return box.replaceChildren();
    const lines = notes.map((note) => el("p", {}, note));
    if (motion.known === false) {
      const text = `The model has seen nothing like \u201c${short(motion.prompt)}\u201d in training, so the motion may show something else.`;
      lines.unshift(el("p", {}, text));
      const nearest = motion.nearest ?? [];
      if (nearest.length) {
        const offers = nearest.map((words) => button(words, "chip", () => this.setPrompt(sentence(words))));
        lines.push(el("p", {}, "Nearest actions that it knows:"), el("div", { class: "chips" }, ...offers));
      }
    }
    box.replaceChildren(...lines);
  }
}

function stage(job) {
  const { status, position, request, motions, error } = job;
  if (status === "queued") return position ? `Waiting: ${plural(position, "motion")} ahead of this one.` : "Waiting for the model.";
  if (status === "running") {
    const count = motions.length || (request.prompts?.length ?? 1) * (request.count ?? 1);
    return `Making ${count === 1 ? "the motion" : `${count} motions`}${job.progress > 0.5 ? ", more than half is done" : ""}.`;
  }
  if (status === "done") {
    const lengths = motions.map(({ made }) => made.error ?? `${made.seconds.toFixed(1)} s`);
    return `Done: ${plural(motions.length, "motion")}, ${lengths.join(", ")}.`;
  }
  if (status === "cancelled") return "Cancelled. What was made so far can be played.";
  return `It failed: ${error?.message ?? "the server gives no reason"}`;
}

const short = (text) => (text.length > 80 ? `${text.slice(0, 79)}\u2026` : text);
