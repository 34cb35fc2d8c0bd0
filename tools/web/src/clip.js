// One motion of the page: its texts and its joints. A `Clip` is complete, and unpacked when it is first asked for its
// joints; a `GrowingClip` gets its frames one by one while it is made.

import { JOINT, N_JOINTS } from "./skeleton.js";

const WIDTH = 3 * N_JOINTS;

// Metres from the head joint, or from raised hands, up to the label; jumps beyond the last are not followed.
const ABOVE_HEAD = 0.36;
const ABOVE_HANDS = 0.12;
const HIGHEST = 0.75;

// What the stage needs of a motion. `joints`: Float32Array of frames * 66, x, y, z of each joint.
class Motion {
  constructor(index, { title, fps, color = null }) {
    Object.assign(this, { index, title, fps, color, contacts: null, growing: false });
  }

  get duration() {
    return this.frames / this.fps;
  }

  // Writes the pose at `seconds` into `out` (66); the last pose holds after the end.
  poseAt(seconds, out) {
    const position = Math.min(Math.max(seconds * this.fps, 0), this.frames - 1);
    const before = Math.floor(position);
    const after = Math.min(before + 1, this.frames - 1);
    const mix = position - before;
    const { joints } = this;
    for (let i = 0; i < WIDTH; i++) {
      const start = joints[before * WIDTH + i];
      out[i] = start + mix * (joints[after * WIDTH + i] - start);
    }
    return out;
  }

  // Bits for left ankle, right ankle, left toes, right toes that stand at `seconds`.
  contactsAt(seconds) {
    if (!this.contacts) return 0;
    return this.contacts[Math.min(this.frames - 1, Math.max(0, Math.round(seconds * this.fps)))];
  }

  // Where the body goes: the box of all its joints over all frames, and the height of the label above it.
  get bounds() {
    return (this.measured ??= measure(this.joints));
  }
}

export class Clip extends Motion {
  // `packed` is one entry of the page's data, see hftrainer/render/viewer.py.
  constructor(packed, index) {
    super(index, packed);
    this.notes = Object.entries(packed.notes);
    this.frames = packed.frames;
    this.group = packed.group ?? null; // motions of one group are compared with each other
    this.files = Object.entries(packed.files ?? {}); // names of formats and of files beside the page
    if (packed.contacts) this.contacts = new Uint8Array(bytes(packed.contacts));
    this.packed = packed;
  }

  get joints() {
    if (this.packed) {
      this.unpacked = unpack(this.packed);
      this.packed = null;
    }
    return this.unpacked;
  }
}

export class GrowingClip extends Motion {
  // `about` has title and fps.
  constructor(about, index) {
    super(index, about);
    this.room = new Float32Array(64 * WIDTH);
    this.frames = 0;
    this.growing = true;
  }

  get joints() {
    return this.room.subarray(0, this.frames * WIDTH);
  }

  // Adds frames, as base64 of float32 metres.
  append(base64) {
    const more = new Float32Array(bytes(base64));
    if (!more.length || more.length % WIDTH) throw new Error(`frames have ${WIDTH} numbers each, got ${more.length}`);
    const used = this.frames * WIDTH;
    if (used + more.length > this.room.length) {
      const room = new Float32Array(2 * (used + more.length));
      room.set(this.joints);
      this.room = room;
    }
    this.room.set(more, used);
    this.frames += more.length / WIDTH;
    this.measured = null;
  }

  // Drops the first frames.
  forget(frames) {
    this.room.copyWithin(0, frames * WIDTH, this.frames * WIDTH);
    this.frames -= frames;
    this.measured = null;
  }

  finish() {
    this.growing = false;
  }
}

// Body poses are 16-bit steps from the pelvis, so that their precision does not depend on how far the clip walks.
function unpack({ frames, path, pose, low, step }) {
  const pelvis = new Float32Array(bytes(path));
  const steps = new Uint16Array(bytes(pose));
  const joints = new Float32Array(frames * WIDTH);
  for (let frame = 0, from = 0, to = 0; frame < frames; frame++) {
    for (let i = 0; i < WIDTH; i++, to++) {
      const axis = i % 3;
      const root = pelvis[3 * frame + axis];
      joints[to] = i < 3 ? root : root + low[axis] + steps[from++] * step[axis];
    }
  }
  return joints;
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0)).buffer;
}

// How far from the pelvis a body reaches on the floor, most of the time.
function reach(joints) {
  const distances = [];
  for (let start = 0; start < joints.length; start += WIDTH) {
    let most = 0;
    for (let i = start + 3; i < start + WIDTH; i += 3) {
      most = Math.max(most, Math.hypot(joints[i] - joints[start], joints[i + 2] - joints[start + 2]));
    }
    distances.push(most);
  }
  distances.sort((a, b) => a - b);
  return distances[Math.floor(0.98 * (distances.length - 1))];
}

function measure(joints) {
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  for (let i = 0; i < joints.length; i++) {
    low[i % 3] = Math.min(low[i % 3], joints[i]);
    high[i % 3] = Math.max(high[i % 3], joints[i]);
  }
  const heads = [];
  for (let i = 3 * JOINT.head + 1; i < joints.length; i += WIDTH) heads.push(joints[i]);
  heads.sort((a, b) => a - b);
  const head = heads[Math.floor(0.9 * (heads.length - 1))]; // most of the time it is no higher
  return { low, high, reach: reach(joints), label: head + Math.min(HIGHEST, Math.max(ABOVE_HEAD, high[1] - head + ABOVE_HANDS)) };
}
