// The same stage without WebGL: stick figures on a flat canvas, seen in perspective, that can be turned and zoomed.

import { around, aroundPath, rowFor } from "./layout.js";
import { JOINT, JOINTS, N_JOINTS, PARENTS, SIDES } from "./skeleton.js";
import { FIELD_OF_VIEW, cameraAxes, direction, fitView, startDirection } from "./view.js";

const MARGINS = { top: 56, bottom: 104 };
const COLORS = { left: "#e58a4f", right: "#3f7fc1", middle: "#8d96a3" };
const BONES = PARENTS.map((parent, joint) => [parent, joint]).filter(([parent]) => parent >= 0);
const HEAD = 0.105; // metres, as the thickness of the bone that ends at each joint
const THICKNESS = JOINTS.map((name) => (/knee/.test(name) ? 0.13 : /ankle/.test(name) ? 0.1 : 0.08));
const TRUNK = ["left_shoulder", "right_shoulder", "right_hip", "left_hip"].map((name) => JOINT[name]);

export class Stage2D {
  kind = "2d";

  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.onChange = onChange;
    this.context = canvas.getContext("2d");
    this.actors = [];
    this.shown = { mode: "body", trail: true, follow: false };
    this.view = { yaw: 0.3, pitch: 0.25, distance: 6, target: [0, 0.9, 0] };
    this.size = { width: 1, height: 1 };
    this.listen();
  }

  setClips(entries) {
    this.actors = entries.map((entry) => ({ ...entry, numbers: new Float32Array(3 * N_JOINTS) }));
    this.grow();
  }

  // Some clips have got more frames.
  grow() {
    this.box = around(this.actors.map(({ clip }) => clip.bounds), this.actors.map(({ offset }) => offset));
  }

  get rowLength() {
    return rowFor(this.size.width / this.size.height);
  }

  show(changed) {
    Object.assign(this.shown, changed);
  }

  setTheme(theme) {
    this.theme = theme;
  }

  resize(width, height) {
    const ratio = Math.min(2, devicePixelRatio || 1);
    this.size = { width, height };
    this.canvas.width = width * ratio;
    this.canvas.height = height * ratio;
    this.context.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.focal = height / 2 / Math.tan((FIELD_OF_VIEW / 2) * (Math.PI / 180));
  }

  get needsFollowing() {
    return false; // a flat view that moves by itself is hard to read
  }

  resetView() {
    const toCamera = startDirection(this.actors.length === 1);
    const { width, height } = this.size;
    const wide = (0.92 * width) / 2 / this.focal;
    const high = Math.max(0.3 * height, height - MARGINS.top - MARGINS.bottom) / 2 / this.focal;
    const paths = this.actors.flatMap(({ clip, offset }) => aroundPath(clip, offset));
    Object.assign(this.view, fitView(paths, toCamera, wide, high));
    this.view.yaw = Math.atan2(toCamera[0], toCamera[2]);
    this.view.pitch = Math.asin(toCamera[1]);
    this.touched = false;
    this.followed = null;
  }

  turn(angle) {
    this.view.yaw += angle;
    this.touched = true;
  }

  update(seconds) {
    for (const actor of this.actors) actor.clip.poseAt(seconds, actor.numbers);
    this.seconds = seconds;
  }

  moveCamera() {
    if (!this.shown.follow) {
      this.followed = null;
      return;
    }
    const mean = (axis) =>
      this.actors.reduce((sum, { numbers, offset }) => sum + numbers[axis] + offset[axis / 2], 0) / this.actors.length;
    const now = [mean(0), mean(2)];
    const [dx, dz] = this.followed ? now.map((value, i) => value - this.followed[i]) : [0, 0];
    this.view.target[0] += dx;
    this.view.target[2] += dz;
    this.followed = now;
  }

  draw() {
    const { context: draw, theme, view } = this;
    this.axes = cameraAxes(direction(view.yaw, view.pitch));
    draw.clearRect(0, 0, this.size.width, this.size.height);
    draw.lineCap = draw.lineJoin = "round";
    this.drawGrid(theme.line);
    if (this.shown.trail) for (const actor of this.actors) this.drawTrail(actor);
    for (const actor of this.actors) this.drawShadow(actor);
    const byDepth = this.actors.map((actor) => [this.see(this.placeOf(actor, 0)).depth, actor]);
    byDepth.sort(([a], [b]) => b - a);
    for (const [, actor] of byDepth) this.drawBody(actor);
  }

  project(index, height, out) {
    const { numbers, offset } = this.actors[index];
    Object.assign(out, this.see([numbers[0] + offset[0], height, numbers[2] + offset[1]]));
  }

  placeOf({ numbers, offset: [x, z] }, joint) {
    return [numbers[3 * joint] + x, numbers[3 * joint + 1], numbers[3 * joint + 2] + z];
  }

  // A place of the world in pixels; `scale` is the pixels of a metre there.
  see(place) {
    const [right, up, back] = this.axes.map((axis) =>
      axis.reduce((sum, value, i) => sum + value * (place[i] - this.view.target[i]), 0),
    );
    const depth = this.view.distance - back;
    const scale = this.focal / Math.max(depth, 0.05);
    const middle = (this.size.height + MARGINS.top - MARGINS.bottom) / 2;
    return { x: this.size.width / 2 + right * scale, y: middle - up * scale, depth, scale };
  }

  line(from, to, color, width) {
    const [a, b] = [this.see(from), this.see(to)];
    if (a.depth < 0.1 || b.depth < 0.1) return;
    const { context: draw } = this;
    draw.strokeStyle = color;
    draw.lineWidth = width ?? 1;
    draw.beginPath();
    draw.moveTo(a.x, a.y);
    draw.lineTo(b.x, b.y);
    draw.stroke();
  }

  drawGrid(color) {
    const { low, high } = this.box;
    const [left, right] = [Math.floor(low[0]) - 1, Math.ceil(high[0]) + 1];
    const [rear, front] = [Math.floor(low[2]) - 1, Math.ceil(high[2]) + 1];
    for (let x = left; x <= right; x++) this.line([x, 0, rear], [x, 0, front], color);
    for (let z = rear; z <= front; z++) this.line([left, 0, z], [right, 0, z], color);
  }

  drawTrail({ clip, color, offset: [x, z] }) {
    const { joints, frames, fps } = clip;
    const at = (frame) => [joints[66 * frame] + x, 0, joints[66 * frame + 2] + z];
    const step = Math.max(1, Math.round(fps / 10));
    for (let frame = 0; frame + step < frames; frame += step) {
      this.context.globalAlpha = frame / fps < this.seconds ? 0.9 : 0.3;
      this.line(at(frame), at(frame + step), color.accent, 2.5);
    }
    this.context.globalAlpha = 1;
  }

  drawShadow(actor) {
    const { context: draw } = this;
    draw.fillStyle = "rgba(0, 0, 0, 0.09)";
    for (const joint of [0, JOINT.left_foot, JOINT.right_foot]) {
      const [x, , z] = this.placeOf(actor, joint);
      const { x: left, y: top, depth, scale } = this.see([x, 0, z]);
      if (depth < 0.1) continue;
      draw.beginPath();
      draw.ellipse(left, top, 0.2 * scale, 0.2 * scale * Math.max(0.1, Math.sin(this.view.pitch)), 0, 0, 2 * Math.PI);
      draw.fill();
    }
  }

  // Far parts first, so that what is near covers them; one outline around all sets bodies apart.
  drawBody(actor) {
    const thin = this.shown.mode === "bones";
    const places = PARENTS.map((_, joint) => this.placeOf(actor, joint));
    const parts = BONES.map(([parent, joint]) => ({
      path: [places[parent], places[joint]], color: COLORS[SIDES[joint]], width: thin ? 0.02 : THICKNESS[joint],
    }));
    if (!thin) parts.push({ path: TRUNK.map((joint) => places[joint]), color: COLORS.middle, width: 0.12 });
    for (const part of parts) {
      part.depth = part.path.reduce((sum, place) => sum + this.see(place).depth, 0) / part.path.length;
    }
    parts.sort((a, b) => b.depth - a.depth);
    for (const part of parts) this.drawPart(part, this.theme.outline, 3);
    for (const part of parts) this.drawPart(part, part.color, 0);
    this.drawHead(actor, thin);
  }

  drawPart({ path, width, depth }, color, more) {
    if (depth < 0.2) return;
    const { context: draw } = this;
    draw.beginPath();
    for (const { x, y } of path.map((place) => this.see(place))) draw.lineTo(x, y);
    draw.closePath();
    draw.strokeStyle = draw.fillStyle = color;
    draw.lineWidth = width * (this.focal / depth) + more;
    draw.fill();
    draw.stroke();
  }

  drawHead(actor, thin) {
    const { context: draw } = this;
    const [x, y, z] = this.placeOf(actor, JOINT.head);
    const head = this.see([x, y + 0.6 * HEAD, z]);
    if (head.depth < 0.1) return;
    draw.beginPath();
    draw.arc(head.x, head.y, HEAD * head.scale, 0, 2 * Math.PI);
    draw.fillStyle = COLORS.middle;
    draw.strokeStyle = thin ? COLORS.middle : this.theme.outline;
    draw.lineWidth = thin ? 2 : 1;
    if (!thin) draw.fill();
    draw.stroke();
  }

  // One finger or the mouse turns, two fingers or the wheel zoom.
  listen() {
    const fingers = new Map();
    const { canvas, view } = this;
    canvas.addEventListener("pointerdown", (event) => {
      this.touched = true;
      canvas.setPointerCapture(event.pointerId);
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = fingers.get(event.pointerId);
      if (!before) return;
      const spread = () => {
        const [a, b] = [...fingers.values()];
        return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0;
      };
      const wasSpread = spread();
      fingers.set(event.pointerId, [event.clientX, event.clientY]);
      if (fingers.size > 1) this.zoom(wasSpread / Math.max(1, spread()));
      else {
        view.yaw -= (event.clientX - before[0]) * 0.006;
        view.pitch = Math.min(1.5, Math.max(0.02, view.pitch + (event.clientY - before[1]) * 0.006));
      }
      this.onChange();
    });
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
    }
    const onWheel = (event) => {
      event.preventDefault();
      this.zoom(Math.exp(event.deltaY * 0.001));
    };
    canvas.addEventListener("wheel", onWheel, { passive: false });
  }

  zoom(factor) {
    this.touched = true;
    this.view.distance = Math.min(120, Math.max(0.8, this.view.distance * factor));
    this.onChange();
  }

  economize() {
    return false;
  }

  dispose() {}
}
