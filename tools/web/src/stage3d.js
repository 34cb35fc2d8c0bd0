// The studio: bodies on a floor, lit from the front left, seen by a camera that the reader moves.

import {
  BackSide, BoxGeometry, DirectionalLight, Group, Mesh, MeshBasicMaterial, NeutralToneMapping,
  VSMShadowMap, PerspectiveCamera, PMREMGenerator, Scene, Vector3, WebGLRenderer,
} from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
import { Body } from "./body.js";
import { Bones } from "./bones.js";
import { Contacts } from "./contacts.js";
import { ContactShade, Ground } from "./ground.js";
import { around, aroundBody, aroundPath, rowFor } from "./layout.js";
import { N_JOINTS } from "./skeleton.js";
import { Trail } from "./trail.js";
import { FIELD_OF_VIEW, fitView, startDirection } from "./view.js";

const HALF_VIEW = Math.tan((FIELD_OF_VIEW / 2) * (Math.PI / 180)); // half its height one metre away

// What lies over the picture: labels above the heads, the control bar below.
const MARGINS = { top: 52, bottom: 104, side: 30 };

export class Stage3D {
  kind = "3d";

  // Throws where the browser has no WebGL. `onChange` is called when the picture is out of date.
  constructor(canvas, onChange) {
    this.renderer = new WebGLRenderer({ canvas, antialias: true, alpha: true });
    this.plain = drawnInSoftware(this.renderer);
    this.sharpness = this.plain ? 0.7 : 2; // pixels of the canvas to one of the page, at most
    this.renderer.toneMapping = NeutralToneMapping;
    this.renderer.shadowMap.enabled = true;
    this.renderer.shadowMap.type = VSMShadowMap;
    this.scene = new Scene();
    this.scene.environment = studioLight(this.renderer);
    this.ground = new Ground();
    this.scene.add(this.ground.group);
    this.addKeyLight();
    this.camera = new PerspectiveCamera(FIELD_OF_VIEW, 1, 0.1, 400);
    this.controls = new OrbitControls(this.camera, canvas);
    Object.assign(this.controls, { enableDamping: true, dampingFactor: 0.12, minDistance: 0.6, maxDistance: 120 });
    this.controls.maxPolarAngle = 1.56; // not below the floor
    this.controls.addEventListener("change", onChange);
    this.controls.addEventListener("start", () => (this.touched = true));
    this.actors = [];
    this.shown = { mode: "body", trail: true, follow: false, contacts: false };
    this.framing = { middle: new Vector3(), distance: 1 };
    this.point = new Vector3();
    this.size = { width: 1, height: 1 };
  }

  // Puts `clips` on the stage; entries are { clip, color, offset: [x, z] }.
  setClips(entries) {
    for (const actor of this.actors) this.remove(actor);
    this.contact?.dispose();
    if (this.contact) this.scene.remove(this.contact.mesh);
    this.contact = new ContactShade(entries.length);
    this.scene.add(this.contact.mesh);
    this.actors = entries.map((entry) => this.actor(entry));
    this.takeIn();
    this.show(this.shown);
  }

  actor({ clip, color, offset }) {
    const actor = {
      clip, offset, body: new Body(clip, color.body), bones: new Bones(), trail: new Trail(clip, color.accent),
      contacts: new Contacts(clip),
      group: new Group(), numbers: new Float32Array(3 * N_JOINTS),
    };
    actor.group.position.set(offset[0], 0, offset[1]);
    actor.group.add(actor.body.group, actor.bones.group, actor.trail.mesh, actor.contacts.group);
    this.scene.add(actor.group);
    return actor;
  }

  // Some clips have got more frames.
  grow() {
    for (const actor of this.actors) actor.trail.redraw(actor.clip);
    this.takeIn();
  }

  // Where the bodies of all clips go, for the camera and the light.
  takeIn() {
    this.paths = this.actors.flatMap(({ clip, offset }) => aroundPath(clip, offset));
    this.lightUp(around(this.actors.map(({ clip }) => clip.bounds), this.actors.map(({ offset }) => offset)));
  }

  remove(actor) {
    this.scene.remove(actor.group);
    for (const part of [actor.body, actor.bones, actor.trail, actor.contacts]) part.dispose();
  }

  // mode: "body", "bones" or "both".
  show(changed) {
    if (changed.follow && !this.shown.follow) this.startFollowing();
    const { mode, trail, contacts } = (this.shown = { ...this.shown, ...changed });
    for (const actor of this.actors) {
      actor.body.group.visible = mode !== "bones";
      actor.body.setGhost(mode === "both");
      actor.bones.group.visible = mode !== "body";
      actor.bones.setOverlay(mode === "both");
      actor.trail.mesh.visible = trail;
      actor.contacts.group.visible = contacts;
    }
  }

  setTheme(theme) {
    this.ground.setTheme(theme);
    this.scene.environmentIntensity = theme.ambient;
    this.key.intensity = theme.key;
  }

  resize(width, height) {
    this.size = { width, height };
    this.renderer.setPixelRatio(Math.min(this.sharpness, devicePixelRatio || 1));
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    // The middle of what is free of labels and controls is the middle of the view.
    this.camera.setViewOffset(width, height, 0, (MARGINS.bottom - MARGINS.top) / 2, width, height);
    this.camera.updateProjectionMatrix();
  }

  // Looks at the complete paths, or with `follow` at the bodies where they are now.
  resetView() {
    const toCamera = startDirection(this.actors.length === 1);
    const { target, distance } = this.fit(this.shown.follow ? this.placesNow() : this.paths, toCamera);
    this.controls.target.set(...target);
    this.camera.position.set(...toCamera).multiplyScalar(distance).add(this.controls.target);
    this.touched = false;
    this.startFollowing();
    this.controls.update();
  }

  // Around the bodies by `angle` radians.
  turn(angle) {
    const { target } = this.controls;
    this.camera.position.sub(target).applyAxisAngle(this.camera.up, angle).add(target);
    this.touched = true;
    this.controls.update();
  }

  // Whether the bodies would be small if all of their paths had to be seen at once.
  get needsFollowing() {
    const toCamera = startDirection(this.actors.length === 1);
    return this.fit(this.paths, toCamera).distance > 1.3 * this.fit(this.placesNow(), toCamera).distance;
  }

  // The view that shows `points`, clear of labels and controls.
  fit(points, toCamera) {
    const { width, height } = this.size;
    const high = HALF_VIEW * Math.max(0.3, 1 - (MARGINS.top + MARGINS.bottom) / height);
    const wide = ((HALF_VIEW * width) / height) * Math.max(0.5, 1 - (2 * MARGINS.side) / width);
    return fitView(points, toCamera, wide, high);
  }

  // Moves every body to `seconds`.
  update(seconds) {
    const pixel = (2 * HALF_VIEW) / this.size.height / Math.min(1, this.renderer.getPixelRatio());
    this.actors.forEach((actor, index) => {
      actor.clip.poseAt(seconds, actor.numbers);
      if (this.shown.mode !== "bones") actor.body.update(actor.numbers);
      if (this.shown.mode !== "body") actor.bones.update(actor.numbers);
      actor.trail.update(seconds, pixel);
      actor.contacts.update(seconds, actor.numbers);
      this.contact.update(index, actor.numbers, actor.offset);
    });
  }

  // How many bodies stand in a row.
  get rowLength() {
    return rowFor(this.size.width / this.size.height);
  }

  // The camera's own motion since the last picture `elapsed` seconds ago. It keeps the bodies where on the screen, and
  // as large, as the reader has put them.
  moveCamera(elapsed) {
    if (this.shown.follow && this.actors.length) {
      const { middle, distance } = this.framing;
      const ease = (change) => (change > 1.5 ? 1 : 1 - Math.exp(-6 * elapsed)); // a jump is a loop or a seek
      const step = this.middleNow(this.point).sub(middle);
      step.multiplyScalar(ease(step.length()));
      middle.add(step);
      this.controls.target.add(step);
      this.camera.position.add(step);
      const away = this.camera.position.clone().sub(this.controls.target);
      const change = this.fit(this.placesNow(), away.clone().normalize().toArray()).distance / distance;
      const zoom = 1 + (change - 1) * ease(Math.abs(change - 1) * 4);
      this.framing.distance *= zoom;
      this.camera.position.copy(this.controls.target).addScaledVector(away, zoom);
    }
    this.controls.update();
  }

  // From here on the camera goes along with what changes.
  startFollowing() {
    this.middleNow(this.framing.middle);
    const away = this.point.copy(this.camera.position).sub(this.controls.target).normalize();
    this.framing.distance = this.fit(this.placesNow(), away.toArray()).distance;
  }

  // Gives up some beauty where pictures take too long; says whether there was any to give up.
  economize() {
    if (this.sharpness > 1 && devicePixelRatio > 1) this.sharpness = 1;
    else if (this.key.castShadow) this.key.castShadow = false;
    else if (this.sharpness > 0.7) this.sharpness = 0.7;
    else return false;
    this.resize(this.size.width, this.size.height);
    return true;
  }

  draw() {
    const { target } = this.controls;
    this.camera.near = Math.max(0.05, 0.05 * this.camera.position.distanceTo(target)); // depths far away stay distinct
    this.camera.updateProjectionMatrix();
    this.ground.cover(target, Math.max(9, 1.6 * this.camera.position.distanceTo(target), 0.75 * this.extent));
    this.renderer.render(this.scene, this.camera);
  }

  // Where on the picture a place of actor `index` is: writes x and y in pixels, and depth, negative behind the camera.
  project(index, height, out) {
    const { numbers, offset } = this.actors[index];
    this.point.set(numbers[0] + offset[0], height, numbers[2] + offset[1]).applyMatrix4(this.camera.matrixWorldInverse);
    out.depth = -this.point.z;
    this.point.applyMatrix4(this.camera.projectionMatrix);
    out.x = (this.point.x * 0.5 + 0.5) * this.size.width;
    out.y = (0.5 - this.point.y * 0.5) * this.size.height;
  }

  // The middle of the box around all bodies, on the floor.
  middleNow(out) {
    const middle = (axis) => {
      const places = this.actors.map(({ numbers, offset }) => numbers[axis] + offset[axis / 2]);
      return (Math.min(...places) + Math.max(...places)) / 2;
    };
    return out.set(middle(0), 0, middle(2));
  }

  placesNow() {
    return this.actors.flatMap(({ clip, numbers, offset: [x, z] }) =>
      aroundBody(numbers[0] + x, numbers[2] + z, clip.bounds),
    );
  }

  addKeyLight() {
    this.key = new DirectionalLight("#fff6ea", 2);
    this.key.castShadow = !this.plain;
    this.key.shadow.mapSize.set(1024, 1024);
    this.key.shadow.radius = 3.5;
    this.key.shadow.normalBias = 0.02;
    this.scene.add(this.key, this.key.target);
  }

  // Sets the key light's shadow to cover `box` and no more, for the sharpness that is left.
  lightUp({ low, high }) {
    const middle = new Vector3(...low.map((value, axis) => (value + high[axis]) / 2));
    this.extent = Math.hypot(...low.map((value, axis) => high[axis] - value));
    const reach = this.extent / 2 + 0.5;
    this.key.target.position.copy(middle);
    this.key.position.copy(middle).addScaledVector(new Vector3(-0.42, 1, 0.5).normalize(), reach + 4);
    const { camera } = this.key.shadow;
    Object.assign(camera, { left: -reach, right: reach, top: reach, bottom: -reach, near: 0.5, far: 2 * reach + 6 });
    camera.updateProjectionMatrix();
  }

  dispose() {
    for (const actor of this.actors) this.remove(actor);
    this.controls.dispose();
    this.renderer.dispose();
  }
}

// Whether there is no graphics card behind WebGL: then the simplest picture is drawn from the start.
function drawnInSoftware(renderer) {
  const gl = renderer.getContext();
  const known = gl.getExtension("WEBGL_debug_renderer_info");
  const name = known ? gl.getParameter(known.UNMASKED_RENDERER_WEBGL) : gl.getParameter(gl.RENDERER);
  return /swiftshader|llvmpipe|software|basic render/i.test(String(name));
}

// Light from all around, as in a photographer's studio: a bright ceiling, large soft boxes, a dim floor.
function studioLight(renderer) {
  const studio = new Scene();
  const panel = (size, place, brightness) => {
    const mesh = new Mesh(new BoxGeometry(...size), new MeshBasicMaterial({ side: BackSide }));
    mesh.material.color.setScalar(brightness);
    mesh.position.set(...place);
    studio.add(mesh);
  };
  panel([20, 12, 20], [0, 2, 0], 0.42);
  panel([9, 0.1, 9], [0, 7.4, 0], 3.2);
  panel([0.1, 5, 7], [-9, 3, 2], 3);
  panel([0.1, 5, 5], [9, 3, -2], 2);
  panel([7, 4, 0.1], [0, 3, -9], 2.4);
  panel([18, 0.1, 18], [0, -3.5, 0], 0.5);
  const maker = new PMREMGenerator(renderer);
  const light = maker.fromScene(studio, 0.05).texture;
  maker.dispose();
  return light;
}
