// From where a box of the world is looked at, so that all of it fits a screen: shared by the 3D and the flat stage.

const DEGREE = Math.PI / 180;
export const FIELD_OF_VIEW = 32; // vertical, degrees

// The direction from the scene to the camera at the start: from the front, a little from the left and above.
export function startDirection(single) {
  return direction((single ? 32 : 16) * DEGREE, (single ? 13 : 17) * DEGREE);
}

export function direction(yaw, pitch) {
  return [Math.sin(yaw) * Math.cos(pitch), Math.sin(pitch), Math.cos(yaw) * Math.cos(pitch)];
}

// The axes of a camera that looks along -`toCamera`: right, up and back.
export function cameraAxes([x, y, z]) {
  const flat = Math.hypot(x, z);
  return [[z / flat, 0, -x / flat], [(-x * y) / flat, flat, (-z * y) / flat], [x, y, z]];
}

// The nearest place from which a camera that looks along -`toCamera` sees all `points`, as the point it turns around
// and its distance from it. `wide` and `high` are the tangents of half the angles that may be filled.
export function fitView(points, toCamera, wide, high) {
  const axes = cameraAxes(toCamera);
  const seen = points.map((point) => axes.map((axis) => dot(point, axis)));
  const reach = Math.max(reachFor(seen, 0, wide), reachFor(seen, 1, high));
  const depth = seen.reduce((sum, [, , z]) => sum + z, 0) / seen.length;
  const place = [middle(seen, 0, reach), middle(seen, 1, reach), depth];
  const target = [0, 1, 2].map((axis) => place.reduce((sum, value, i) => sum + value * axes[i][axis], 0));
  return { target, distance: Math.max(1, reach - depth) };
}

// How far back a camera in the best place along axis `side` sees all points: those that bind are the outermost rays.
function reachFor(seen, side, slope) {
  const edge = (sign) => seen.reduce((most, point) => Math.max(most, slope * point[2] + sign * point[side]), -Infinity);
  return (edge(1) + edge(-1)) / (2 * slope);
}

// Where along axis `side` a camera that far back has equal margins on both sides of the picture.
function middle(seen, side, reach) {
  let [low, high] = [1, -1].map((sign) => sign * Math.min(...seen.map((point) => sign * point[side])));
  for (let halving = 0; halving < 24; halving++) {
    const place = (low + high) / 2;
    let [below, above] = [0, 0];
    for (const point of seen) {
      const slope = (point[side] - place) / Math.max(reach - point[2], 0.1);
      below = Math.max(below, -slope);
      above = Math.max(above, slope);
    }
    if (above > below) low = place;
    else high = place;
  }
  return (low + high) / 2;
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
