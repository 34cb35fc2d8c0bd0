// All motions that were made, newest first: play one, put several side by side, download, use again, remove.

import { byId, el, iconButton } from "./dom.js";
import { facts, hasFiles } from "./player.js";

const STATES = { queued: "waiting", running: "being made", failed: "failed", cancelled: "cancelled", done: "" };

export class History {
  // `on`: play(motion), compare(motion), download(motion), again(job), remove(job).
  constructor(on) {
    this.on = on;
    this.rows = new Map(); // motion: its elements
  }

  add(motion) {
    const row = this.row(motion);
    this.rows.set(motion, row);
    byId("rows").prepend(row.item);
    this.update(motion);
  }

  row(motion) {
    const { on } = this;
    const prompt = el("span", { class: "prompt" });
    const fact = el("span", { class: "facts" });
    const badge = el("span", { class: "badge" }, String(motion.number));
    const only = el("button", { type: "button", class: "only", title: "Play", click: () => on.play(motion) }, badge, el("span", { class: "texts" }, prompt, fact));
    const compare = iconButton("compare", "Compare", () => on.compare(motion), { "aria-pressed": "false" });
    const download = iconButton("download", "Download", () => on.download(motion));
    const again = iconButton("again", "Use this request again", () => on.again(motion.job));
    const remove = iconButton("remove", "Remove", () => on.remove(motion.job));
    const item = el("li", { class: "row" }, only, el("span", { class: "row-tools" }, compare, download, again, remove));
    return { item, only, prompt, fact, badge, compare, download };
  }

  update(motion) {
    const row = this.rows.get(motion);
    if (!row) return;
    const { job, prompt = "" } = motion;
    row.prompt.textContent = prompt || "(no text)";
    row.fact.textContent = [motion.made?.error ?? STATES[job.status], motion.clip || motion.made ? facts(motion) : "", clock(job.created)]
      .filter(Boolean)
      .join(" \u00b7 ");
    row.download.disabled = !hasFiles(motion);
    row.compare.disabled = !motion.clip?.frames && !hasFiles(motion);
    for (const tool of row.item.querySelectorAll(".row-tools .tool")) {
      tool.setAttribute("aria-label", `${tool.title}: motion ${motion.number}`);
    }
    byId("history-empty").hidden = this.rows.size > 0;
  }

  // Marks what is shown, in the colours that it has there.
  mark(entries) {
    const colors = new Map(entries.map(({ motion, color }) => [motion, color]));
    for (const [motion, { item, only, badge, compare }] of this.rows) {
      const shown = colors.has(motion);
      item.classList.toggle("shown", shown);
      badge.style.setProperty("--accent", colors.get(motion) ?? "");
      only.setAttribute("aria-current", String(shown));
      compare.setAttribute("aria-pressed", String(shown));
    }
  }

  remove(job) {
    for (const motion of job.motions) {
      this.rows.get(motion)?.item.remove();
      this.rows.delete(motion);
    }
    byId("history-empty").hidden = this.rows.size > 0;
  }

  // In the order of the list.
  get motions() {
    return [...this.rows.keys()].reverse();
  }
}

function clock(when) {
  const today = new Date().toDateString() === when.toDateString();
  const time = { hour: "2-digit", minute: "2-digit" };
  return when.toLocaleString([], today ? time : { day: "numeric", month: "short", ...time });
}
