// The path of the pelvis on the floor: a ribbon, strong where the body has been, faint where it will go, with a dot
// for every second.

import { BufferGeometry, Color, DoubleSide, Float32BufferAttribute, Mesh, ShaderMaterial } from "three";

const HALF_WIDTH = 0.009;
const DOT = 0.03;
const LEVEL = 0.003;

export class Trail {
  constructor(clip, color) {
    this.mesh = new Mesh(shape(clip), material(color));
    this.mesh.frustumCulled = false;
  }

  // `pixel` is the size of a pixel one metre away, in metres.
  update(seconds, pixel) {
    this.mesh.material.uniforms.now.value = seconds;
    this.mesh.material.uniforms.pixel.value = pixel;
  }

  // The clip has got longer.
  redraw(clip) {
    this.mesh.geometry.dispose();
    this.mesh.geometry = shape(clip);
  }

  dispose() {
    this.mesh.geometry.dispose();
    this.mesh.material.dispose();
  }
}

// All points lie on the path; the shader moves each by `out_`, so that the ribbon never gets thinner than a pixel.
// `at` is when the body passes, and where the point lies in the unit disc: a dot fills the disc, the ribbon is a slice
// through its middle.
function shape(clip) {
  const points = walked(clip);
  const [position, out, at, index] = [[], [], [], []];
  const add = (x, z, outX, outZ, when, u, v) => {
    position.push(x, LEVEL, z);
    out.push(outX, 0, outZ);
    at.push(when, u, v);
  };
  points.forEach(([x, z, when], i) => {
    const [a, b] = [points[Math.max(0, i - 1)], points[Math.min(points.length - 1, i + 1)]];
    const [dx, dz] = [b[0] - a[0], b[1] - a[1]];
    const scale = HALF_WIDTH / (Math.hypot(dx, dz) || 1);
    for (const side of [1, -1]) add(x, z, side * scale * dz, -side * scale * dx, when, side, 0);
    if (i) index.push(2 * i - 2, 2 * i - 1, 2 * i, 2 * i, 2 * i - 1, 2 * i + 1);
  });
  for (const [x, z, when] of seconds(clip)) {
    const first = position.length / 3;
    for (const [u, v] of [[-1, -1], [1, -1], [1, 1], [-1, 1]]) add(x, z, DOT * u, DOT * v, when, u, v);
    index.push(first, first + 1, first + 2, first, first + 2, first + 3);
  }
  const geometry = new BufferGeometry();
  geometry.setAttribute("position", new Float32BufferAttribute(position, 3));
  geometry.setAttribute("out_", new Float32BufferAttribute(out, 3));
  geometry.setAttribute("at", new Float32BufferAttribute(at, 3));
  geometry.setIndex(index);
  return geometry;
}

const floorPoint = ({ joints, fps }, frame) => [joints[66 * frame], joints[66 * frame + 2], frame / fps];
const apart = ([x, z], [otherX, otherZ]) => Math.hypot(x - otherX, z - otherZ);

// Steps below 2 cm are left out: a ribbon through the sway of a standing body would be a scribble.
function walked(clip) {
  const points = [floorPoint(clip, 0)];
  for (let frame = 1; frame < clip.frames; frame++) {
    const point = floorPoint(clip, frame);
    if (apart(point, points[points.length - 1]) > 0.02) points.push(point);
  }
  return points;
}

// The start and every full second, unless the body has hardly moved since the dot before.
function seconds(clip) {
  const dots = [floorPoint(clip, 0)];
  for (let second = 1; second * clip.fps < clip.frames; second++) {
    const point = floorPoint(clip, Math.round(second * clip.fps));
    if (apart(point, dots[dots.length - 1]) > 4 * DOT) dots.push(point);
  }
  return dots;
}

function material(color) {
  return new ShaderMaterial({
    transparent: true,
    depthWrite: false,
    side: DoubleSide,
    uniforms: { color: { value: new Color(color) }, now: { value: 0 }, pixel: { value: 0 } },
    vertexShader: `
      attribute vec3 at, out_;
      uniform float pixel;
      varying vec3 spot;
      void main() {
        spot = at;
        float away = -(modelViewMatrix * vec4(position, 1.0)).z;
        vec3 moved = position + out_ * max(1.0, 1.3 * pixel * away / ${HALF_WIDTH.toFixed(3)});
        gl_Position = projectionMatrix * modelViewMatrix * vec4(moved, 1.0);
      }`,
    fragmentShader: `
      uniform vec3 color;
      uniform float now;
      varying vec3 spot;
      void main() {
        float away = length(spot.yz);
        float inside = 1.0 - smoothstep(1.0 - fwidth(away), 1.0, away);
        float been = 1.0 - smoothstep(now, now + 0.02, spot.x);
        gl_FragColor = vec4(color, inside * mix(0.4, 0.95, been));
        #include <colorspace_fragment>
      }`,
  });
}
