// Where each motion of a side-by-side view stands: no two paths share ground.

const FLESH = 0.14; // metres from a joint to the skin, about
const ARM = 0.5; // how far from the pelvis every body has room in the picture
const GAP = 0.3;
const APART = 1.5; // metres between bodies that are still being made
const ROW_LENGTH = 6;
const SLICE = 0.25; // metres of depth that get one bounding box of a path

// One floor offset [x, z] for each clip. Bodies that start at their own origin start in one line, left to right on the
// screen; more than six make rows behind, shifted by half a place so that nobody is hidden.
export function sideBySide(clips, rowLength = ROW_LENGTH) {
  const offsets = [];
  let back = 0;
  for (let start = 0; start < clips.length; start += rowLength) {
    const row = clips.slice(start, start + rowLength);
    const places = inOneRow(row.map(slices));
    const [first, last] = [places[0], places[places.length - 1]];
    const shift = ((start / rowLength) % 2) * 0.5 * ((last - first) / row.length) - (first + last) / 2;
    const z = start ? back - GAP - FLESH - Math.max(...row.map(({ bounds }) => bounds.high[2])) : 0;
    back = z - FLESH + Math.min(...row.map(({ bounds }) => bounds.low[2]));
    for (const place of places) offsets.push([place + shift, z]);
  }
  return offsets;
}

// One line, with a fixed distance: for paths of which the end is not known yet.
export function inOneLine(clips) {
  return clips.map((_, slot) => [APART * (slot - (clips.length - 1) / 2), 0]);
}

// All on each other, to be compared pose by pose.
export function inOnePlace(clips) {
  return clips.map(() => [0, 0]);
}

// Each path as far to the left as those before it allow, slice by slice: a path that bends away leaves room.
function inOneRow(paths) {
  const places = [];
  paths.forEach((path, index) => {
    let place = 0;
    for (let before = 0; before < index; before++) {
      for (const [slice, [left]] of path) {
        const taken = paths[before].get(slice);
        if (taken) place = Math.max(place, places[before] + taken[1] + GAP - left);
      }
    }
    places.push(place);
  });
  return places;
}

// The width [left, right] that a path takes in each slice of depth that it touches.
function slices({ joints, frames }) {
  const widths = new Map();
  for (let frame = 0; frame < frames; frame++) {
    const [low, high] = [[Infinity, Infinity], [-Infinity, -Infinity]];
    for (let i = 66 * frame; i < 66 * (frame + 1); i += 3) {
      for (const axis of [0, 1]) {
        low[axis] = Math.min(low[axis], joints[i + 2 * axis] - FLESH);
        high[axis] = Math.max(high[axis], joints[i + 2 * axis] + FLESH);
      }
    }
    for (let slice = Math.floor(low[1] / SLICE); slice <= Math.floor(high[1] / SLICE); slice++) {
      const width = widths.get(slice);
      if (width) widths.set(slice, [Math.min(width[0], low[0]), Math.max(width[1], high[0])]);
      else widths.set(slice, [low[0], high[0]]);
    }
  }
  return widths;
}

// How many bodies stand in a row of a picture that is so many times as wide as high: on a phone, two.
export function rowFor(aspect) {
  return Math.max(2, Math.min(ROW_LENGTH, Math.round(3.4 * aspect)));
}

// Points that a camera has to see for a body of which `x` and `z` are the pelvis, from the floor to the label.
export function aroundBody(x, z, { label, reach }) {
  const room = Math.max(ARM, Math.min(1.1, reach + FLESH));
  const points = [];
  for (const across of [-room, room]) {
    for (const along of [-room, room]) points.push([x + across, 0, z + along], [x + across, label, z + along]);
  }
  return points;
}

// The same for all of a clip's path.
export function aroundPath({ joints, frames, bounds }, [x, z]) {
  const step = Math.max(1, Math.floor(frames / 40));
  const points = [];
  for (let frame = 0; frame < frames; frame += step) {
    points.push(...aroundBody(joints[66 * frame] + x, joints[66 * frame + 2] + z, bounds));
  }
  return points;
}

// The box around all placed clips, from the floor to their labels.
export function around(bounds, offsets) {
  const low = [Infinity, 0, Infinity];
  const high = [-Infinity, 0, -Infinity];
  bounds.forEach((one, index) => {
    const [x, z] = offsets[index];
    low[0] = Math.min(low[0], one.low[0] + x - FLESH);
    low[2] = Math.min(low[2], one.low[2] + z - FLESH);
    high[0] = Math.max(high[0], one.high[0] + x + FLESH);
    high[1] = Math.max(high[1], one.label);
    high[2] = Math.max(high[2], one.high[2] + z + FLESH);
  });
  return { low, high };
}
