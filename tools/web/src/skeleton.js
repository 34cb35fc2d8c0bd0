// The 22 SMPL joints as hftrainer/motion/skeleton.py has them; tests/motion/test_viewer.py compares the two.

export const JOINTS = [
  "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle", "right_ankle",
  "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head", "left_shoulder",
  "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
];
export const PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19];
export const N_JOINTS = JOINTS.length;

// JOINT.left_knee is 4.
export const JOINT = Object.fromEntries(JOINTS.map((name, index) => [name, index]));

// "left", "right" or "middle", joint by joint.
export const SIDES = JOINTS.map((name) => (/^(left|right)_/.exec(name) ?? [0, "middle"])[1]);
