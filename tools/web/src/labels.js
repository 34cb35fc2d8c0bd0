// Number and prompt of each shown motion, floating above its head.

const SPACE = 6; // pixels between labels

export class Labels {
  constructor(layer) {
    this.layer = layer;
    this.labels = [];
    this.seen = { x: 0, y: 0, depth: 0 };
  }

  setClips(entries) {
    this.labels = entries.map(({ clip, color }) => {
      const root = element("div", "label");
      const badge = element("span", "badge", String(clip.index + 1));
      const text = element("span", "label-text", clip.title || "(no text)");
      root.style.setProperty("--accent", color.accent);
      root.append(badge, text);
      return { root, clip, text, height: clip.bounds.label, full: true, wide: 0, high: 0 };
    });
    this.layer.style.setProperty("--count", entries.length);
    this.layer.replaceChildren(...this.labels.map(({ root }) => root));
    this.measure();
  }

  retitle(clip) {
    const label = this.labels.find((one) => one.clip === clip);
    label.text.textContent = clip.title;
    this.measure();
  }

  // Sizes are read once, not in every frame: reading them makes the browser lay out the page.
  measure() {
    for (const label of this.labels) {
      label.root.classList.remove("small");
      label.wide = label.root.offsetWidth;
      label.high = label.root.offsetHeight;
      label.root.classList.toggle("small", !label.full);
    }
  }

  // Nearest first; a label that would cover one before it shrinks to its number.
  update(stage, seconds) {
    const placed = this.labels.map((label, index) => {
      stage.project(index, label.height, this.seen);
      return { label, ...this.seen };
    });
    placed.sort((a, b) => a.depth - b.depth);
    const taken = [];
    for (const { label, x: wantedX, y: wantedY, depth } of placed) {
      const [x, y] = inside(wantedX, wantedY, label, stage.size);
      const slack = label.full ? 0 : SPACE; // so that a label at the limit does not flicker
      const half = label.wide / 2 + slack;
      const area = [x - half, y - label.high - slack, x + half, y + slack];
      const full = !taken.some((other) => overlap(area, other));
      if (full !== label.full) label.root.classList.toggle("small", !(label.full = full));
      taken.push(full ? area : [x - 13, y - 26, x + 13, y]);
      label.root.style.visibility = depth > 0.2 ? "visible" : "hidden";
      label.root.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px) translate(-50%, -100%)`;
      label.root.style.zIndex = String(Math.round(1e4 - 10 * depth));
      label.root.classList.toggle("ended", seconds > label.clip.duration + 1e-6);
    }
  }
}

// A label stays complete at the picture's edge, unless its body is out of it.
function inside(x, y, { wide, high, full }, size) {
  if (x < 0 || x > size.width) return [x, y];
  const half = (full ? wide / 2 : 13) + SPACE;
  return [Math.max(half, Math.min(size.width - half, x)), Math.max(high + SPACE, y)];
}

function overlap([left, top, right, bottom], [otherLeft, otherTop, otherRight, otherBottom]) {
  return left < otherRight + SPACE && right > otherLeft - SPACE && top < otherBottom && bottom > otherTop;
}

// An element with a class, and text that is never read as HTML.
export function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}
