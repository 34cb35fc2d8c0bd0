// Smooth closed surfaces through rings of points: the limbs, the head, the hands, the feet and the trunk.

import { BufferAttribute, BufferGeometry } from "three";

const SEGMENTS = 32;
const CAP_RINGS = 7;

// A ring lies across the y axis at height `y`: `wide` and `deep` are half its size along x and z, `x` and `z` its
// centre, and `shade` (1: none) darkens it as folds and joints do.
// The surface has one more point at each end, so it is closed; neighbours share points, so it is smooth everywhere.
export function loft(rings) {
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(new Float32Array(3 * (rings.length * SEGMENTS + 2)), 3));
  geometry.setAttribute("color", new BufferAttribute(shades(rings), 3));
  geometry.setIndex(faces(rings.length));
  const point = geometry.attributes.position;
  rings.forEach(({ y, wide, deep = wide, x = 0, z = 0 }, ring) => {
    eachAround((s, c, i) => point.setXYZ(ring * SEGMENTS + i, x + wide * s, y, z + deep * c));
  });
  closeEnds(point, rings.length);
  geometry.computeVertexNormals();
  return geometry;
}

// A bone from y = 0 to `length` with half a ball at either end. `profile` holds [t, radius, z] from t = 0 to 1.
export function limb(length, profile, { flat = 1, shade = 0.88 } = {}) {
  const at = smoothTable(profile);
  const [, start, startZ = 0] = profile[0];
  const [, end, endZ = 0] = profile[profile.length - 1];
  const rings = [];
  const ring = (y, radius, z, dark) => rings.push({ y, wide: flat * radius, deep: radius, z, shade: dark });
  for (let i = 1; i <= CAP_RINGS; i++) {
    const angle = (i / (CAP_RINGS + 1)) * (Math.PI / 2);
    ring(-start * Math.cos(angle), start * Math.sin(angle), startZ, shade);
  }
  const steps = 22;
  for (let i = 0; i <= steps; i++) {
    const t = i / steps;
    const [radius, z] = at(t);
    const nearEnd = Math.min(t, 1 - t) * 7; // joints read better when the light fades towards them
    ring(t * length, radius, z, shade + (1 - shade) * Math.min(1, nearEnd));
  }
  for (let i = CAP_RINGS; i >= 1; i--) {
    const angle = (i / (CAP_RINGS + 1)) * (Math.PI / 2);
    ring(length + end * Math.cos(angle), end * Math.sin(angle), endZ, shade);
  }
  return loft(rings);
}

// A ball moved point by point: `shape(x, y, z)` gets points of the unit ball.
export function ball(shape, rows = 30) {
  const rings = [];
  for (let i = 1; i < rows; i++) {
    const angle = (i / rows) * Math.PI;
    rings.push({ y: -Math.cos(angle), wide: Math.sin(angle) });
  }
  const geometry = loft(rings);
  const point = geometry.attributes.position;
  const ends = [point.count - 2, point.count - 1];
  ends.forEach((index, side) => point.setY(index, side ? 1 : -1));
  for (let i = 0; i < point.count; i++) point.setXYZ(i, ...shape(point.getX(i), point.getY(i), point.getZ(i)));
  geometry.computeVertexNormals();
  return geometry;
}

// Moves the rings of a loft: `place(ring, sine, cosine, point)` writes where the surface passes. Done for every
// picture, so it works on the bare numbers.
export function reloft(geometry, count, place) {
  const { position, normal } = geometry.attributes;
  const point = { x: 0, y: 0, z: 0 };
  for (let ring = 0, at = 0; ring < count; ring++) {
    eachAround((s, c) => {
      place(ring, s, c, point);
      position.array[at++] = point.x;
      position.array[at++] = point.y;
      position.array[at++] = point.z;
    });
  }
  closeEnds(position, count);
  ringNormals(position.array, normal.array, count);
  position.needsUpdate = normal.needsUpdate = true;
}

// Across the surface at every point: at right angles to the ways between its neighbours around and along. At the ends
// the last ring is its own neighbour, and the end points look along the surface.
function ringNormals(position, normal, rings) {
  const p = position;
  const put = (to, x, y, z) => {
    const length = Math.sqrt(x * x + y * y + z * z) || 1;
    normal[to] = x / length;
    normal[to + 1] = y / length;
    normal[to + 2] = z / length;
  };
  const cross = (to, a, b, c, d) => {
    const [ax, ay, az] = [p[b] - p[a], p[b + 1] - p[a + 1], p[b + 2] - p[a + 2]];
    const [bx, by, bz] = [p[d] - p[c], p[d + 1] - p[c + 1], p[d + 2] - p[c + 2]];
    put(to, ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx);
  };
  const along = (to, a, b) => put(to, p[b] - p[a], p[b + 1] - p[a + 1], p[b + 2] - p[a + 2]);
  const row = 3 * SEGMENTS;
  for (let ring = 0; ring < rings; ring++) {
    const first = ring * row;
    const below = ring ? -row : 0;
    const above = ring < rings - 1 ? row : 0;
    for (let i = 0; i < row; i += 3) {
      const here = first + i;
      cross(here, first + ((i + row - 3) % row), first + ((i + 3) % row), here + below, here + above);
    }
  }
  along(rings * row, row, 0);
  along(rings * row + 3, (rings - 2) * row, (rings - 1) * row);
}

// Rows [t, value, value...] as a smooth function of t (Hermite with slopes that never overshoot).
export function smoothTable(rows) {
  const width = Math.max(...rows.map((row) => row.length)) - 1;
  const value = (row, column) => rows[row][column + 1] ?? 0;
  const slope = (row, column) => {
    if (row === 0 || row === rows.length - 1) return 0;
    const before = (value(row, column) - value(row - 1, column)) / (rows[row][0] - rows[row - 1][0]);
    const after = (value(row + 1, column) - value(row, column)) / (rows[row + 1][0] - rows[row][0]);
    return before * after <= 0 ? 0 : (2 * before * after) / (before + after);
  };
  return (t) => {
    let row = 0;
    while (row < rows.length - 2 && t > rows[row + 1][0]) row++;
    const span = rows[row + 1][0] - rows[row][0];
    const u = Math.min(1, Math.max(0, (t - rows[row][0]) / span));
    return Array.from({ length: width }, (_, column) => {
      const [a, b] = [value(row, column), value(row + 1, column)];
      const [slopeA, slopeB] = [slope(row, column) * span, slope(row + 1, column) * span];
      return a + u * (slopeA + u * (3 * (b - a) - 2 * slopeA - slopeB + u * (2 * (a - b) + slopeA + slopeB)));
    });
  };
}

function eachAround(visit) {
  for (let i = 0; i < SEGMENTS; i++) visit(SINES[i], COSINES[i], i);
}

const ANGLES = Array.from({ length: SEGMENTS }, (_, i) => (2 * Math.PI * i) / SEGMENTS);
const SINES = ANGLES.map(Math.sin);
const COSINES = ANGLES.map(Math.cos);

// The two end points are the middles of the first and the last ring.
function closeEnds({ array }, rings) {
  [0, rings - 1].forEach((ring, end) => {
    for (let axis = 0; axis < 3; axis++) {
      let sum = 0;
      for (let i = 0; i < SEGMENTS; i++) sum += array[3 * (ring * SEGMENTS + i) + axis];
      array[3 * (rings * SEGMENTS + end) + axis] = sum / SEGMENTS;
    }
  });
}

function faces(rings) {
  const index = [];
  for (let ring = 0; ring < rings - 1; ring++) {
    for (let i = 0; i < SEGMENTS; i++) {
      const a = ring * SEGMENTS + i;
      const b = ring * SEGMENTS + ((i + 1) % SEGMENTS);
      index.push(a, b, b + SEGMENTS, a, b + SEGMENTS, a + SEGMENTS);
    }
  }
  const [bottom, top] = [rings * SEGMENTS, rings * SEGMENTS + 1];
  for (let i = 0; i < SEGMENTS; i++) {
    const next = (i + 1) % SEGMENTS;
    index.push(bottom, next, i, top, (rings - 1) * SEGMENTS + i, (rings - 1) * SEGMENTS + next);
  }
  return index;
}

function shades(rings) {
  const colors = new Float32Array(3 * (rings.length * SEGMENTS + 2));
  rings.forEach(({ shade = 1 }, ring) => colors.fill(shade, 3 * ring * SEGMENTS, 3 * (ring + 1) * SEGMENTS));
  const [first, last] = [rings[0].shade ?? 1, rings[rings.length - 1].shade ?? 1];
  colors.set([first, first, first, last, last, last], 3 * rings.length * SEGMENTS);
  return colors;
}
