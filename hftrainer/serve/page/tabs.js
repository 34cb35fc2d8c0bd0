// Tabs as the ARIA practices have them: arrows move, and show what they reach.

import { byId } from "./dom.js";

export class Tabs {
  // `names` of tab-NAME and pane-NAME; changed(name) is called after a choice.
  constructor(names, changed) {
    Object.assign(this, { names, changed });
    for (const name of names) {
      byId(`tab-${name}`).addEventListener("click", () => this.choose(name));
      byId(`tab-${name}`).addEventListener("keydown", (event) => this.key(event));
    }
    this.choose(names[0]);
  }

  choose(chosen) {
    this.chosen = chosen;
    for (const name of this.names) {
      const tab = byId(`tab-${name}`);
      tab.setAttribute("aria-selected", String(name === chosen));
      tab.tabIndex = name === chosen ? 0 : -1;
      byId(`pane-${name}`).hidden = name !== chosen;
    }
    this.changed(chosen);
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -this.names.indexOf(this.chosen), End: -1 - this.names.indexOf(this.chosen) };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const { names } = this;
    this.choose(names[(names.indexOf(this.chosen) + steps[event.key] + names.length) % names.length]);
    byId(`tab-${this.chosen}`).focus();
  }
}
