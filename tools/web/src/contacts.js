// Discs under the feet that stand on the floor: heels and toes, left and right, in the colours of their sides.

import { CircleGeometry, Group, Mesh, MeshBasicMaterial } from "three";
import { JOINT } from "./skeleton.js";

// In the order of the bits of a clip's contacts.
const FEET = ["left_ankle", "right_ankle", "left_foot", "right_foot"];
const COLORS = { left: "#d9712f", right: "#2b6cb3" };
const RADIUS = 0.055;
const LEVEL = 0.006;

export class Contacts {
  constructor(clip) {
    this.clip = clip;
    this.group = new Group();
    this.discs = FEET.map((name) => {
      const material = new MeshBasicMaterial({ color: COLORS[name.split("_")[0]], transparent: true, opacity: 0.75 });
      material.depthWrite = false;
      const disc = new Mesh(new CircleGeometry(RADIUS, 28).rotateX(-Math.PI / 2), material);
      this.group.add(disc);
      return disc;
    });
  }

  update(seconds, numbers) {
    const bits = this.clip.contactsAt(seconds);
    this.discs.forEach((disc, foot) => {
      const at = 3 * JOINT[FEET[foot]];
      disc.visible = Boolean(bits & (1 << foot));
      disc.position.set(numbers[at], LEVEL, numbers[at + 2]);
    });
  }

  dispose() {
    for (const disc of this.discs) {
      disc.geometry.dispose();
      disc.material.dispose();
    }
  }
}
