// The bare skeleton: a thin bone between every joint and its parent, a ball at every joint.

import {
  Color, CylinderGeometry, Group, InstancedMesh, MeshStandardMaterial, Object3D, SphereGeometry, Vector3,
} from "three";
import { N_JOINTS, PARENTS, SIDES } from "./skeleton.js";

const COLORS = { left: "#d9712f", right: "#2b6cb3", middle: "#7d8795" };
const BONES = PARENTS.map((parent, joint) => [parent, joint]).filter(([parent]) => parent >= 0);

export class Bones {
  constructor() {
    const material = () => new MeshStandardMaterial({ roughness: 0.5 });
    const rod = new CylinderGeometry(0.011, 0.011, 1, 12).translate(0, 0.5, 0);
    this.rods = new InstancedMesh(rod, material(), BONES.length);
    this.balls = new InstancedMesh(new SphereGeometry(0.021, 18, 12), material(), N_JOINTS);
    BONES.forEach(([, joint], i) => this.rods.setColorAt(i, new Color(COLORS[SIDES[joint]])));
    SIDES.forEach((side, joint) => this.balls.setColorAt(joint, new Color(COLORS[side])));
    this.group = new Group();
    for (const mesh of [this.rods, this.balls]) {
      mesh.frustumCulled = false;
      mesh.castShadow = true;
      this.group.add(mesh);
    }
    this.joints = Array.from({ length: N_JOINTS }, () => new Vector3());
    this.place = new Object3D();
    this.along = new Vector3();
  }

  update(numbers) {
    const { joints, place, along } = this;
    joints.forEach((joint, i) => {
      place.position.copy(joint.fromArray(numbers, 3 * i));
      place.quaternion.identity();
      place.scale.setScalar(1);
      place.updateMatrix();
      this.balls.setMatrixAt(i, place.matrix);
    });
    BONES.forEach(([parent, joint], i) => {
      along.subVectors(joints[joint], joints[parent]);
      place.position.copy(joints[parent]);
      place.scale.set(1, Math.max(along.length(), 1e-4), 1);
      place.quaternion.setFromUnitVectors(place.up, along.normalize());
      place.updateMatrix();
      this.rods.setMatrixAt(i, place.matrix);
    });
    this.rods.instanceMatrix.needsUpdate = this.balls.instanceMatrix.needsUpdate = true;
  }

  // Drawn after the body and over it, where both are shown.
  setOverlay(over) {
    for (const mesh of [this.rods, this.balls]) {
      mesh.renderOrder = over ? 2 : 0;
      mesh.castShadow = !over;
      mesh.material.transparent = over; // sorts it after what is opaque
      mesh.material.depthTest = !over;
    }
  }

  dispose() {
    for (const mesh of [this.rods, this.balls]) {
      mesh.geometry.dispose();
      mesh.material.dispose();
      mesh.dispose();
    }
  }
}
