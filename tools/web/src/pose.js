// From 22 joint positions to the turn of every body part. Positions say nothing of the twist along a bone, so each
// bone carries its parent's frame along by the shortest turn, which is smooth and looks natural.
//
// A part's frame has y along the bone; at rest z is the body's front and the body's left is +x.

import { Matrix4, Quaternion, Vector3 } from "three";
import { JOINT, JOINTS } from "./skeleton.js";

const vectors = Array.from({ length: 8 }, () => new Vector3());
const turn = new Quaternion();
const basis = new Matrix4();

// The limbs: [name, parent's name, from joint, to joint, rest direction in the parent's frame, and the quarter turns
// about the front axis that lay y along it]. A limb whose parent is a limb continues along its y.
const LIMBS = ["left", "right"].flatMap((side) => {
  const out = side === "left" ? 1 : -1;
  return [
    [`${side}_thigh`, "pelvis", `${side}_hip`, `${side}_knee`, [0, -1, 0], 2],
    [`${side}_shin`, `${side}_thigh`, `${side}_knee`, `${side}_ankle`, [0, 1, 0], 0],
    [`${side}_upper_arm`, "chest", `${side}_shoulder`, `${side}_elbow`, [out, 0, 0], -out],
    [`${side}_forearm`, `${side}_upper_arm`, `${side}_elbow`, `${side}_wrist`, [0, 1, 0], 0],
  ];
});
const FRONT = new Vector3(0, 0, 1);
const quarters = (count) => new Quaternion().setFromAxisAngle(FRONT, (count * Math.PI) / 2);
const LAID = new Map([-1, 0, 1, 2].map((count) => [count, quarters(count)]));

export class Pose {
  // `build` holds what stays the same in a clip: see `proportions`.
  constructor(build) {
    this.build = build;
    this.joint = JOINTS.map(() => new Vector3());
    this.frames = {};
    for (const name of ["pelvis", "chest", "head", "left_foot", "right_foot"]) this.frames[name] = new Quaternion();
    for (const [name] of LIMBS) this.frames[name] = new Quaternion();
  }

  // Takes the 66 numbers of a pose.
  set(numbers) {
    const { joint, frames } = this;
    joint.forEach((position, index) => position.fromArray(numbers, 3 * index));
    pelvisFrame(joint, frames.pelvis);
    chestFrame(joint, frames.chest);
    for (const [name, parent, from, to, rest, turns] of LIMBS) {
      swing(frames[name], frames[parent], joint[JOINT[from]], joint[JOINT[to]], rest).multiply(LAID.get(turns));
    }
    swing(frames.head, frames.chest, joint[JOINT.neck], joint[JOINT.head], this.build.neckRest);
    for (const side of ["left", "right"]) {
      const [ankle, ball] = [joint[JOINT[`${side}_ankle`]], joint[JOINT[`${side}_foot`]]];
      swing(frames[`${side}_foot`], frames[`${side}_shin`], ankle, ball, this.build.footRest);
    }
  }
}

// `out` = the parent's frame, turned so that its direction `rest` points from one joint to the other.
function swing(out, parent, from, to, rest) {
  const now = vectors[0].subVectors(to, from);
  const before = vectors[1].fromArray(rest).applyQuaternion(parent);
  if (now.lengthSq() < 1e-10) now.copy(before);
  turn.setFromUnitVectors(before.normalize(), now.normalize());
  return out.copy(parent).premultiply(turn);
}

function pelvisFrame(joint, out) {
  const left = vectors[2].subVectors(joint[JOINT.left_hip], joint[JOINT.right_hip]);
  const middle = vectors[3].addVectors(joint[JOINT.left_hip], joint[JOINT.right_hip]).multiplyScalar(0.5);
  frameFrom(left, vectors[4].subVectors(joint[JOINT.spine1], middle), out);
}

// Collars turn less than shoulders do, but in some skeletons they nearly meet: use both.
function chestFrame(joint, out) {
  const left = vectors[2].subVectors(joint[JOINT.left_collar], joint[JOINT.right_collar]);
  left.addScaledVector(vectors[3].subVectors(joint[JOINT.left_shoulder], joint[JOINT.right_shoulder]), 0.5);
  frameFrom(left, vectors[4].subVectors(joint[JOINT.neck], joint[JOINT.spine2]), out);
}

// y as given, x as near to `left` as it can be. A collapsed body keeps its last frame.
function frameFrom(left, up, out) {
  const front = vectors[5].crossVectors(left, up);
  if (front.lengthSq() < 1e-12) return;
  const side = vectors[6].crossVectors(up, front);
  basis.makeBasis(side.normalize(), up.normalize(), front.normalize());
  out.setFromRotationMatrix(basis);
}

// What a clip's body is like: lengths of bones (medians over frames), and how neck and feet stand at rest.
export function proportions(clip) {
  const frames = sampled(clip);
  const length = (from, to) => median(frames.map((at) => at(from).distanceTo(at(to))));
  const bones = {};
  for (const side of ["left", "right"]) {
    bones[`${side}_thigh`] = length(`${side}_hip`, `${side}_knee`);
    bones[`${side}_shin`] = length(`${side}_knee`, `${side}_ankle`);
    bones[`${side}_upper_arm`] = length(`${side}_shoulder`, `${side}_elbow`);
    bones[`${side}_forearm`] = length(`${side}_elbow`, `${side}_wrist`);
    bones[`${side}_foot`] = length(`${side}_ankle`, `${side}_foot`);
  }
  const legs = (bones.left_thigh + bones.left_shin + bones.right_thigh + bones.right_shin) / 2;
  return {
    bones,
    size: Math.min(2.5, Math.max(0.2, legs / 0.81)), // 1: about 1.70 m tall
    hips: length("left_hip", "right_hip"),
    shoulders: length("left_shoulder", "right_shoulder"),
    neck: length("neck", "head"),
    neckRest: neckRest(frames),
    footRest: footRest(frames, bones),
  };
}

// Skeletons differ in whether the head joint is above the neck or in front of it; faces should look ahead in all.
function neckRest(frames) {
  const chest = new Quaternion();
  const lean = median(
    frames.map((at) => {
      chestFrame(JOINTS.map(at), chest);
      const neck = at("head").sub(at("neck")).applyQuaternion(chest.invert());
      return Math.atan2(neck.z, neck.y);
    }),
  );
  const angle = Math.min(0.75, Math.max(-0.15, lean));
  return [0, Math.cos(angle), Math.sin(angle)];
}

// The slope from ankle to ball on frames where the ball is lowest, seen from the shin: the sole is flat then.
function footRest(frames, bones) {
  const drops = frames.flatMap((at) =>
    ["left", "right"].map((side) => ({
      height: at(`${side}_foot`).y,
      slope: (at(`${side}_ankle`).y - at(`${side}_foot`).y) / (bones[`${side}_foot`] || 1),
    })),
  );
  drops.sort((a, b) => a.height - b.height);
  const slope = median(drops.slice(0, Math.ceil(drops.length / 3)).map((drop) => drop.slope));
  const angle = Math.asin(Math.min(0.8, Math.max(0.25, slope || 0.5)));
  return [0, Math.sin(angle), Math.cos(angle)];
}

// Up to 60 frames of a clip as functions from a joint, by name, to a new vector.
function sampled(clip) {
  const count = Math.min(60, clip.frames);
  return Array.from({ length: count }, (_, i) => {
    const start = 66 * Math.floor((i * clip.frames) / count);
    return (name) => new Vector3().fromArray(clip.joints, start + 3 * JOINT[name]);
  });
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[sorted.length >> 1];
}
