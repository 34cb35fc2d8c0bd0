// The list of all motions of the page: search, and choose one or several to show.

import { element } from "./labels.js";

export class Panel {
  // `choose(index, add)`: show only motion `index`, or, with `add`, add or remove it.
  constructor(root, clips, title, choose) {
    this.find = (name) => root.querySelector(`[data-part="${name}"]`);
    this.find("title").textContent = this.find("title").title = title;
    this.rows = clips.map((clip) => row(clip, choose));
    this.find("list").replaceChildren(...this.rows.map(({ item }) => item));
    root.style.setProperty("--badge", `${12 + 7 * String(clips.length).length}px`); // all numbers as wide as the last
    this.find("tools").hidden = clips.length < 2;
    this.count = this.find("count");
    this.search = this.find("search");
    this.search.addEventListener("input", () => this.filter());
    this.filter();
  }

  // Every word has to be found in the prompt or in the facts.
  filter() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const { item, searched } of this.rows) {
      item.hidden = !words.every((word) => searched.includes(word));
      found += item.hidden ? 0 : 1;
    }
    const total = this.rows.length;
    const motions = total === 1 ? "1 motion" : `${total} motions`;
    this.count.textContent = words.length ? `${found} of ${motions}` : motions;
  }

  // Marks what is shown; entries are { clip, color }.
  mark(entries) {
    const colors = new Map(entries.map(({ clip, color }) => [clip.index, color.accent]));
    this.rows.forEach(({ item, pick }, index) => {
      const color = colors.get(index);
      item.classList.toggle("shown", Boolean(color));
      item.style.setProperty("--accent", color ?? "");
      pick.setAttribute("aria-pressed", String(Boolean(color)));
    });
  }

  reveal(index) {
    this.rows[index].item.scrollIntoView({ block: "nearest" });
  }

  // Motions that the search leaves, in order: what "next" and "previous" walk through.
  get listed() {
    return this.rows.flatMap(({ item }, index) => (item.hidden ? [] : [index]));
  }
}

// Links to the files of a motion that lie beside the page.
function downloads(files) {
  const links = element("span", "files");
  for (const [name, file] of files) {
    const link = element("a", "file", name);
    link.href = encodeURIComponent(file);
    link.download = file;
    link.title = `Download ${file}, which lies beside this page`;
    links.append(link);
  }
  return links;
}

function row(clip, choose) {
  const item = element("li", "row");
  const pick = element("button", "pick");
  pick.type = "button";
  pick.title = "Show beside the others, or no more";
  pick.setAttribute("aria-label", `Show motion ${clip.index + 1} beside the others`);
  pick.append(element("span", "badge", String(clip.index + 1)));
  const main = element("button", "only");
  main.type = "button";
  main.title = "Show only this motion (Ctrl or Shift: beside the others)";
  const facts = element("span", "facts");
  facts.append(element("span", "fact", `${clip.duration.toFixed(1)} s`));
  facts.append(element("span", "fact", clip.frames === 1 ? "1 frame" : `${clip.frames} frames`));
  for (const [name, value] of clip.notes) {
    const fact = element("span", "fact");
    fact.append(element("span", "fact-name", name), ` ${value}`);
    facts.append(fact);
  }
  main.append(element("span", "prompt", clip.title || "(no text)"), facts);
  item.append(pick, main);
  if (clip.files.length) main.after(downloads(clip.files));
  pick.addEventListener("click", () => choose(clip.index, true));
  main.addEventListener("click", (event) => choose(clip.index, event.ctrlKey || event.metaKey || event.shiftKey));
  const searched = [clip.title, ...clip.notes.flat()].join(" ").toLowerCase();
  return { item, pick, searched };
}
