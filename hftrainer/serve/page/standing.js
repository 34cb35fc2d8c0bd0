// A standing figure, shown until there is a motion.

// x, y, z of the 22 joints in centimetres: a body like that of the motions, so that it does not change with the first one.
const POSE = [
  [0, 88, 0], [6, 86, 0], [-6, 86, 0], [0, 104, -1], [10, 47, 2], [-10, 47, 2], [0, 108, -1], [11, 7, -6], [-11, 7, -6],
  [0, 113, -1], [12, 0, 2], [-12, 0, 2], [0, 129, 0], [5, 126, -1], [-5, 126, -1], [0, 136, 0], [10, 126, -2],
  [-10, 126, -2], [17, 103, -1], [-17, 103, -1], [19, 83, 8], [-19, 83, 8],
];

export function standing(GrowingClip) {
  const clip = new GrowingClip({ title: "a person stands", fps: 30 }, 0);
  const metres = new Float32Array(POSE.flat().map((centimetres) => centimetres / 100));
  clip.append(btoa(String.fromCharCode(...new Uint8Array(metres.buffer))));
  clip.finish();
  return clip;
}
