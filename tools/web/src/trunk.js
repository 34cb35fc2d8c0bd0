// Hips, waist and rib cage as one surface around the spine, moved with every pose.

import { CatmullRomCurve3, Mesh, Quaternion, Vector3 } from "three";
import { loft, reloft, smoothTable } from "./shapes.js";
import { JOINT } from "./skeleton.js";

const RINGS = 34;
const CAP = 5; // rings that close the surface below the hips

const SPINE = ["spine1", "spine2", "spine3", "neck"].map((name) => JOINT[name]);

// Along the spine, 0 at the hips and 1 at the neck: half the width, half the depth, how far the middle lies in front
// of the spine, and how square the outline is (0: an ellipse). Metres for a body of size 1 with hips `h` and
// shoulders `s` metres from the middle.
const outline = (h, s) =>
  smoothTable([
    [0.0, h + 0.062, 0.112, -0.004, 0.25],
    [0.12, h + 0.072, 0.116, -0.006, 0.25],
    [0.3, 0.55 * h + 0.098, 0.1, 0.004, 0.2],
    [0.44, 0.4 * h + 0.107, 0.096, 0.008, 0.2],
    [0.62, 0.26 * s + 0.098, 0.1, 0.01, 0.25],
    [0.76, 0.37 * s + 0.087, 0.102, 0.009, 0.28],
    [0.87, 0.55 * s + 0.046, 0.093, 0.004, 0.22],
    [0.94, 0.45 * s + 0.034, 0.08, 0.0, 0.1],
    [1.0, 0.055, 0.056, 0.0, 0.0],
  ]);
const WAIST = 0.27; // where trousers end and the shirt begins

export class Trunk {
  constructor(build, material) {
    const at = outline(0.5 * build.hips, Math.min(0.2, 0.5 * build.shoulders));
    this.size = build.size;
    this.rings = Array.from({ length: RINGS + CAP }, (_, i) => {
      const t = Math.max(0, (i - CAP) / (RINGS - 1));
      const [wide, deep, ahead, square] = at(t);
      const below = Math.max(0, CAP - i) / (CAP + 0.4);
      const round = Math.sqrt(1 - below * below);
      return { t, y: i, wide: wide * round, deep: deep * round, ahead, square, below, shade: shadeAt(t) };
    });
    this.geometry = loft(this.rings);
    this.mesh = new Mesh(this.geometry, material);
    this.mesh.frustumCulled = false; // its points move and its bounds would have to follow
    this.curve = new CatmullRomCurve3(Array.from({ length: 5 }, () => new Vector3()));
    this.curve.arcLengthDivisions = 32;
    this.middle = new Vector3();
    this.frame = new Quaternion();
    this.side = new Vector3();
    this.front = new Vector3();
    this.down = new Vector3();
  }

  update({ joint, frames }) {
    const [hips, ...spine] = this.curve.points;
    hips.addVectors(joint[JOINT.left_hip], joint[JOINT.right_hip]).multiplyScalar(0.5);
    SPINE.forEach((index, i) => spine[i].copy(joint[index]));
    this.curve.updateArcLengths();
    const { middle, side, front } = this;
    let last = null;
    reloft(this.geometry, this.rings.length, (index, sine, cosine, point) => {
      const ring = this.rings[index];
      if (ring !== last) this.moveTo((last = ring), frames);
      const push = 1 + ring.square * (1 / Math.max(Math.abs(sine), Math.abs(cosine)) - 1); // towards a square
      const [x, z] = [ring.wide * push * sine, ring.deep * push * cosine + ring.ahead];
      point.x = middle.x + x * side.x + z * front.x;
      point.y = middle.y + x * side.y + z * front.y;
      point.z = middle.z + x * side.z + z * front.z;
    });
  }

  // The middle and the axes of a ring: the hips' below, the chest's above, and a blend in the waist.
  moveTo(ring, { pelvis, chest }) {
    const u = Math.min(1, Math.max(0, (ring.t - 0.1) / 0.55));
    this.frame.slerpQuaternions(pelvis, chest, u * u * (3 - 2 * u));
    this.side.set(this.size, 0, 0).applyQuaternion(this.frame);
    this.front.set(0, 0, this.size).applyQuaternion(this.frame);
    this.down.set(0, -0.1 * this.size * ring.below, 0).applyQuaternion(this.frame);
    this.curve.getPointAt(ring.t, this.middle).add(this.down);
  }
}

// Trousers are darker than the shirt, with a short blend between them so that the rim is not jagged.
function shadeAt(t) {
  const shirt = Math.min(1, Math.max(0, (t - WAIST) / 0.03));
  return 0.6 + 0.4 * shirt;
}
