// Words that help to write a prompt: the model's examples, and the actions that it has seen in training.

import { button, byId, el } from "./dom.js";

export function chips(texts, use) {
  return texts.map((text) => button(text, "chip", () => use(text)));
}

export class Vocabulary {
  // use(verb) is called when one is chosen.
  constructor(use) {
    this.use = use;
    this.verbs = [];
    byId("vocabulary-search").addEventListener("input", () => this.list());
  }

  show(verbs) {
    this.verbs = Object.entries(verbs).sort(([, a], [, b]) => b - a);
    byId("vocabulary").hidden = !this.verbs.length;
    byId("vocabulary-title").textContent = `${this.verbs.length} actions this model knows`;
    byId("vocabulary-search").value = "";
    this.list();
  }

  list() {
    const wanted = byId("vocabulary-search").value.trim().toLowerCase();
    const found = this.verbs.filter(([verb]) => verb.toLowerCase().includes(wanted));
    const made = found.map(([verb, clips]) => {
      const attributes = { type: "button", class: "chip", title: `${clips} clips in training`, click: () => this.use(verb) };
      return el("button", attributes, verb, " ", el("span", { class: "many" }, String(clips)));
    });
    const none = el("p", { class: "hint" }, "No action of that name. The model may still follow a description.");
    byId("vocabulary-list").replaceChildren(...(made.length ? made : [none]));
  }
}

// "walk" in a sentence: "a person walks". What already is a sentence stays.
export function sentence(words) {
  if (/^(a|an|the|someone|person)\b/i.test(words)) return words;
  const [verb, ...rest] = words.split(" ");
  return ["a person", thirdPerson(verb), ...rest].join(" ");
}

export function thirdPerson(verb) {
  if (/(s|sh|ch|x|z|o)$/.test(verb)) return /[^s]s$/.test(verb) ? verb : `${verb}es`;
  if (/[^aeiou]y$/.test(verb)) return `${verb.slice(0, -1)}ies`;
  return `${verb}s`;
}
