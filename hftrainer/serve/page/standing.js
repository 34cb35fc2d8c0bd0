// Somebody who stands and waits, for as long as there is no motion.

// x, y, z of the 22 joints in centimetres.
const POSE = [
  [0, 93, 0], [9, 87, 1], [-9, 87, 1], [0, 104, -2], [11, 48, 3], [-11, 48, 3], [0, 117, -2], [12, 8, -1], [-12, 8, -1],
  [0, 123, -1], [15, 2, 12], [-15, 2, 12], [0, 144, -4], [8, 135, -3], [-8, 135, -3], [0, 154, 1], [18, 137, -4],
  [-18, 137, -4], [23, 111, -6], [-23, 111, -6], [24, 87, 2], [-24, 87, 2],
];

export function standing(GrowingClip) {
  const clip = new GrowingClip({ title: "a person stands", fps: 30 }, 0);
  const metres = new Float32Array(POSE.flat().map((centimetres) => centimetres / 100));
  clip.append(btoa(String.fromCharCode(...new Uint8Array(metres.buffer))));
  clip.finish();
  return clip;
}
