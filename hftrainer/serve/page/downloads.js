// The dialog with every format of a motion. Files are made on demand, so it says while one is on its way.

import { byId, el } from "./dom.js";

const ABOUT = {
  glb: ["GLB", "Blender, Unity, Unreal, web: skinned body and animation"],
  vrma: ["VRMA", "VRM avatars"],
  bvh: ["BVH", "MotionBuilder, Maya, Blender: skeleton in centimetres"],
  usd: ["USD", "Omniverse, Houdini: skeleton animation"],
  npz: ["NPZ", "NumPy: joints, rotations and what they were made from"],
  npy: ["NPY", "NumPy: the model's own features"],
  amass: ["AMASS NPZ", "SMPL pose parameters"],
  csv: ["CSV", "one row a frame, one column a coordinate"],
  mp4: ["MP4", "video"],
  gif: ["GIF", "moving picture"],
  webp: ["WebP", "moving picture, transparent where asked for"],
  html: ["HTML", "this player as one file that works offline"],
};

export class Downloads {
  constructor(server) {
    this.server = server;
    this.dialog = byId("downloads");
  }

  open({ made }) {
    byId("downloads-of").textContent = made.prompt || "(no text)";
    byId("downloads-status").textContent = "";
    const known = Object.keys(ABOUT).filter((format) => format in made.files);
    const others = Object.keys(made.files).filter((format) => !(format in ABOUT));
    byId("formats").replaceChildren(...[...known, ...others].map((format) => this.format(format, made)));
    this.dialog.showModal();
  }

  format(format, made) {
    const [name, about] = ABOUT[format] ?? [format.toUpperCase(), ""];
    const texts = [el("strong", {}, name), el("span", { class: "hint" }, about)];
    const click = () => this.fetch(made, format, name);
    return el("li", {}, el("button", { type: "button", class: "format", "data-format": format, click }, ...texts));
  }

  async fetch(made, format, name) {
    const say = (text) => (byId("downloads-status").textContent = text);
    say(`Making the ${name} file\u2026`);
    try {
      const address = made.files[format];
      save(await this.server.blob(address), fileName(made, address));
      say(`${name} downloaded.`);
    } catch (error) {
      say(error.message);
    }
  }
}

// The words of the prompt and the ending of the address: walk-forward-seed-3.amass.npz.
function fileName({ prompt, seed }, address) {
  const words = prompt.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["motion"];
  const ending = new URL(address, location.href).pathname.split("/").pop().replace(/^[^.]*/, "");
  return `${words.join("-").slice(0, 60)}-seed-${seed}${ending}`;
}

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
