// A mannequin driven by joint positions only: limbs in two colours, trunk, head, hands and feet.

import { Group, Mesh, MeshStandardMaterial } from "three";
import { proportions, Pose } from "./pose.js";
import { ball, limb, loft, smoothTable } from "./shapes.js";
import { JOINT } from "./skeleton.js";
import { Trunk } from "./trunk.js";

const LEFT = "#e58a4f";
const RIGHT = "#3f7fc1";
const SIDE_COLORS = { left: LEFT, right: RIGHT };

// Radii along each limb, [t, radius, z of the middle] in metres for a body of size 1; y runs from joint to joint.
const THIGH = [[0, 0.084, 0.0], [0.25, 0.083, 0.008], [0.6, 0.066, 0.008], [0.9, 0.054, 0.003], [1, 0.052, 0.002]];
const SHIN = [[0, 0.051, 0.002], [0.12, 0.05, -0.003], [0.3, 0.056, -0.014], [0.62, 0.041, -0.007], [1, 0.034, 0]];
const UPPER_ARM = [[0, 0.06], [0.2, 0.055, 0.001], [0.55, 0.045, 0.005], [0.85, 0.037], [1, 0.037]];
const FOREARM = [[0, 0.037], [0.25, 0.041], [0.65, 0.032], [1, 0.025]];
const COLLAR = [[0, 0.07], [0.5, 0.061], [1, 0.046]];
const NECK = [[0, 0.062], [0.45, 0.053], [1, 0.051]];

export class Body {
  constructor(clip, color) {
    const build = proportions(clip);
    this.pose = new Pose(build);
    this.group = new Group();
    this.materials = [];
    this.parts = []; // [object, function of the pose that moves it]
    const clay = this.material(color);
    this.trunk = new Trunk(build, clay);
    this.add(this.trunk.mesh);
    this.addHead(build, clay);
    for (const side of ["left", "right"]) this.addSide(side, build, clay);
    this.group.traverse((part) => {
      part.castShadow = part.receiveShadow = Boolean(part.isMesh);
    });
  }

  // Moves everything to the 66 numbers of a pose.
  update(numbers) {
    this.pose.set(numbers);
    this.trunk.update(this.pose);
    for (const [part, place] of this.parts) place(part, this.pose);
  }

  // Thin out the body so that a skeleton inside it can be seen.
  setGhost(ghost) {
    for (const material of this.materials) {
      if (material.transparent === ghost) continue;
      material.transparent = ghost;
      material.opacity = ghost ? 0.3 : 1;
      material.needsUpdate = true;
    }
  }

  dispose() {
    this.group.traverse((part) => part.geometry?.dispose());
    for (const material of this.materials) material.dispose();
  }

  material(color) {
    const material = new MeshStandardMaterial({ color, roughness: 0.62, vertexColors: true });
    this.materials.push(material);
    return material;
  }

  add(part, place) {
    this.group.add(part);
    if (place) this.parts.push([part, place]);
    return part;
  }

  // A limb of the body at rest is stretched to where its joints are: generated bones change their length a little.
  addLimb(name, from, to, length, profile, material, size, options) {
    const sized = profile.map(([t, radius, z = 0]) => [t, size * radius, size * z]);
    const usable = Math.max(length, 0.01);
    this.add(new Mesh(limb(usable, sized, options), material), (part, { joint, frames }) => {
      part.position.copy(joint[from]);
      part.quaternion.copy(frames[name]);
      part.scale.y = Math.min(3, Math.max(0.2, joint[from].distanceTo(joint[to]) / usable));
    });
  }

  addHead(build, material) {
    const { size } = build;
    const reach = Math.max(build.neck, 0.02);
    const neck = limb(reach + 0.03 * size, NECK.map(([t, radius]) => [t, size * radius]));
    this.add(new Mesh(neck, material), (part, { joint, frames }) => {
      part.position.copy(joint[JOINT.neck]);
      part.quaternion.copy(frames.head);
      part.rotateX(Math.atan2(build.neckRest[2], build.neckRest[1]));
    });
    this.add(new Mesh(headShape(size), material), (part, { joint, frames }) => {
      part.position.copy(joint[JOINT.head]);
      part.quaternion.copy(frames.head);
    });
  }

  addSide(side, build, clay) {
    const { size, bones } = build;
    const skin = this.material(SIDE_COLORS[side]);
    const joint = (name) => JOINT[`${side}_${name}`];
    const part = (name, from, to, profile) =>
      this.addLimb(`${side}_${name}`, joint(from), joint(to), bones[`${side}_${name}`], profile, skin, size);
    part("thigh", "hip", "knee", THIGH);
    part("shin", "knee", "ankle", SHIN);
    part("upper_arm", "shoulder", "elbow", UPPER_ARM);
    part("forearm", "elbow", "wrist", FOREARM);
    this.addCollar(side, build, clay);
    this.add(new Mesh(footShape(build, side), skin), (foot, pose) => {
      foot.position.copy(pose.joint[joint("ankle")]);
      foot.quaternion.copy(pose.frames[`${side}_foot`]);
    });
    this.add(handShape(size, skin), (hand, pose) => {
      hand.position.copy(pose.joint[joint("wrist")]);
      hand.quaternion.copy(pose.frames[`${side}_forearm`]);
    });
  }

  // From below the neck to the shoulder, so that a raised shoulder stays part of the body.
  addCollar(side, build, clay) {
    const { size } = build;
    const length = Math.max(0.02, 0.5 * build.shoulders);
    const shape = limb(length, COLLAR.map(([t, radius]) => [t, size * radius]), { shade: 1 });
    const [collar, shoulder] = [JOINT[`${side}_collar`], JOINT[`${side}_shoulder`]];
    const aim = { from: null, along: null };
    this.add(new Mesh(shape, clay), (part, { joint }) => {
      aim.from ??= joint[0].clone();
      aim.along ??= joint[0].clone();
      aim.from.copy(joint[JOINT.neck]).lerp(joint[JOINT.spine3], 0.3).lerp(joint[collar], 0.35);
      aim.along.subVectors(joint[shoulder], aim.from);
      part.position.copy(aim.from);
      part.scale.y = Math.max(0.2, aim.along.length() / length);
      part.quaternion.setFromUnitVectors(part.up, aim.along.normalize());
    });
  }
}

// An egg with a chin and a hint of a nose, around a point above the head joint, which sits at the base of the skull.
function headShape(size) {
  const geometry = ball((x, y, z) => {
    const low = Math.min(0, y);
    const face = Math.max(0, z);
    const nose = 0.014 * bump(x / 0.15) * bump((y + 0.12) / 0.2) * (z > 0 ? 1 : 0);
    const brow = -0.006 * bump((y - 0.12) / 0.12) * face;
    const wide = 0.076 * x * (1 - 0.3 * low * low);
    const high = 0.083 + 0.116 * y;
    const deep = 0.094 * z * (z < 0 ? 1 - 0.42 * low * low : 1 - 0.1 * low * low) + nose + brow + 0.012;
    return [size * wide, size * high, size * deep];
  });
  return geometry;
}

const bump = (x) => Math.exp(-x * x);

// A foot in its own frame: z ahead, y down. The ball joint of these skeletons lies at the sole.
function footShape(build, side) {
  const { size, bones, footRest } = build;
  const reach = bones[`${side}_foot`] * footRest[2];
  const sole = bones[`${side}_foot`] * footRest[1] + 0.004 * size;
  const heel = -0.06 * size;
  const tip = reach + 0.085 * size;
  // [t from heel to toes, half the width, height of the instep as a part of the ankle's height]
  const at = smoothTable([
    [0, 0.008, 0.2], [0.03, 0.022, 0.45], [0.1, 0.032, 0.78], [0.3, 0.036, 0.98], [0.5, 0.041, 0.72],
    [0.72, 0.047, 0.46], [0.88, 0.043, 0.34], [0.96, 0.032, 0.27], [1, 0.012, 0.16],
  ]);
  const rings = Array.from({ length: 28 }, (_, i) => {
    const t = i / 27;
    const [wide, high] = at(t);
    const top = sole - high * (sole + 0.012 * size);
    // the lower half of each ring is cut off at the sole, so rings reach below it
    const bottom = sole + 0.5 * (sole - top);
    const [deep, z] = [(bottom - top) / 2, -(bottom + top) / 2];
    return { y: heel + t * (tip - heel), wide: size * wide, deep, z, shade: 0.8 };
  });
  const geometry = loft(rings);
  geometry.rotateX(Math.PI / 2); // y, along, becomes z; z becomes -y
  const point = geometry.attributes.position;
  for (let i = 0; i < point.count; i++) point.setY(i, Math.min(sole, point.getY(i)));
  geometry.computeVertexNormals();
  return geometry;
}

// A mitten along y with its thumb to the front; x goes through the palm.
function handShape(size, material) {
  const at = smoothTable([
    [0, 0.02, 0.024], [0.2, 0.02, 0.032], [0.45, 0.019, 0.041], [0.7, 0.015, 0.038], [0.9, 0.011, 0.026],
    [1, 0.004, 0.008],
  ]);
  const rings = Array.from({ length: 20 }, (_, i) => {
    const [thick, wide] = at(i / 19);
    return { y: size * (0.172 * (i / 19) - 0.004), wide: size * thick, deep: size * wide };
  });
  const hand = new Mesh(loft(rings), material);
  const thumb = limb(0.055 * size, [[0, 0.014 * size], [0.6, 0.0125 * size], [1, 0.009 * size]], { shade: 1 });
  const finger = new Mesh(thumb, material);
  finger.position.set(0, 0.035 * size, 0.022 * size);
  finger.rotation.x = 0.75;
  const group = new Group();
  group.add(hand, finger);
  return group;
}
