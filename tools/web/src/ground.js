// The floor: a metre grid that fades into the distance, a plane that catches the shadow of the key light, and the soft
// darkness where bodies come near to it.

import {
  Color, CustomBlending, DynamicDrawUsage, Group, InstancedBufferAttribute, InstancedMesh, Matrix4, Mesh, OneFactor,
  OneMinusSrcAlphaFactor, PlaneGeometry, ShaderMaterial, ShadowMaterial, Vector3,
} from "three";
import { JOINT } from "./skeleton.js";

// Just under the lowest joint, where the soles are.
const LEVEL = -0.006;

export class Ground {
  constructor() {
    this.group = new Group();
    const plane = new PlaneGeometry(2, 2).rotateX(-Math.PI / 2);
    this.grid = new Mesh(plane, gridMaterial());
    this.grid.renderOrder = -3;
    this.shadow = new Mesh(plane, new ShadowMaterial({ opacity: 0.2, depthWrite: false }));
    this.shadow.receiveShadow = true;
    this.shadow.renderOrder = -2;
    this.shadow.position.y = 0.001;
    this.group.add(this.grid, this.shadow);
    this.group.position.y = LEVEL;
  }

  // The disc that is seen lies around `center` and fades out at `reach` metres.
  cover(center, reach) {
    for (const mesh of [this.grid, this.shadow]) {
      mesh.position.x = center.x;
      mesh.position.z = center.z;
      mesh.scale.set(reach, 1, reach);
      mesh.updateMatrixWorld();
    }
    this.grid.material.uniforms.reach.value = reach;
    this.grid.material.uniforms.center.value.set(center.x, 0, center.z);
  }

  setTheme({ floor, line, shadow }) {
    this.grid.material.uniforms.floor.value.set(floor);
    this.grid.material.uniforms.line.value.set(line);
    this.shadow.material.opacity = shadow;
  }
}

function gridMaterial() {
  return new ShaderMaterial({
    transparent: true,
    polygonOffset: true, // what lies on the floor stays above it at any distance
    polygonOffsetFactor: 2,
    polygonOffsetUnits: 16,
    uniforms: {
      floor: { value: new Color() },
      line: { value: new Color() },
      center: { value: new Vector3() },
      reach: { value: 10 },
    },
    vertexShader: `
      varying vec3 spot;
      void main() {
        vec4 world = modelMatrix * vec4(position, 1.0);
        spot = world.xyz;
        gl_Position = projectionMatrix * viewMatrix * world;
      }`,
    fragmentShader: `
      uniform vec3 floor, line, center;
      uniform float reach;
      varying vec3 spot;

      // How much of the pixel a line every \`every\` metres covers; thins out where lines would run together.
      float lines(float every, float width) {
        vec2 at = spot.xz / every;
        vec2 pixel = fwidth(at);
        vec2 away = abs(fract(at - 0.5) - 0.5);
        vec2 half_width = max(vec2(width / every), pixel) * 0.5;
        vec2 cover = 1.0 - smoothstep(half_width - pixel * 0.5, half_width + pixel, away);
        cover *= clamp(width / every / pixel * 2.0 + 0.35, 0.0, 1.0) * (1.0 - smoothstep(0.25, 0.7, pixel));
        return max(cover.x, cover.y);
      }

      void main() {
        float away = length(spot - center) / reach;
        float fade = 1.0 - smoothstep(0.25, 0.98, away);
        float strength = max(0.55 * lines(1.0, 0.012), 0.75 * lines(5.0, 0.02));
        gl_FragColor = vec4(mix(floor, line, strength), fade);
        #include <colorspace_fragment>
      }`,
  });
}

// The joints whose nearness darkens the floor, with the radius in metres of the flesh around each.
const NEAR = Object.entries({
  pelvis: 0.15, spine2: 0.14, spine3: 0.15, head: 0.11, left_knee: 0.06, right_knee: 0.06, left_ankle: 0.06,
  right_ankle: 0.06, left_foot: 0.055, right_foot: 0.055, left_elbow: 0.045, right_elbow: 0.045, left_wrist: 0.05,
  right_wrist: 0.05,
}).map(([name, radius]) => [JOINT[name], radius]);
const SPREAD = 4; // a blot is that many times as wide as its joint is high
const HIGH = 0.9; // metres: from there on a joint darkens nothing

// Each joint hides some of the sky from the floor below it: a ball of radius r at height h covers
// r^2 h / (d^2 + h^2)^1.5 of the light that falls at distance d from the point right under it.
export class ContactShade {
  constructor(count) {
    const plane = new PlaneGeometry(2, 2).rotateX(-Math.PI / 2);
    this.size = new Float32Array(2 * NEAR.length * count);
    const attribute = new InstancedBufferAttribute(this.size, 2).setUsage(DynamicDrawUsage);
    plane.setAttribute("ball", attribute);
    this.mesh = new InstancedMesh(plane, contactMaterial(), NEAR.length * count);
    this.mesh.frustumCulled = false;
    this.mesh.renderOrder = -1;
    this.matrix = new Matrix4();
  }

  // `numbers` is the pose of body `index`, which stands at offset [x, z].
  update(index, numbers, [x, z]) {
    NEAR.forEach(([joint, radius], i) => {
      const instance = index * NEAR.length + i;
      const height = Math.max(numbers[3 * joint + 1] - LEVEL, 0.75 * radius);
      const spread = height < HIGH ? SPREAD * height : 0;
      this.size.set([radius, height], 2 * instance);
      this.matrix.makeScale(spread, 1, spread);
      this.matrix.setPosition(numbers[3 * joint] + x, LEVEL + 0.002, numbers[3 * joint + 2] + z);
      this.mesh.setMatrixAt(instance, this.matrix);
    });
    this.mesh.instanceMatrix.needsUpdate = true;
    this.mesh.geometry.attributes.ball.needsUpdate = true;
  }

  dispose() {
    this.mesh.geometry.dispose();
    this.mesh.material.dispose();
    this.mesh.dispose();
  }
}

function contactMaterial() {
  return new ShaderMaterial({
    transparent: true,
    depthWrite: false,
    blending: CustomBlending, // only darkens: the colour added is black, weighted by alpha
    blendSrc: OneFactor,
    blendDst: OneMinusSrcAlphaFactor,
    vertexShader: `
      attribute vec2 ball;
      varying vec2 away, shape;
      void main() {
        away = position.xz * ${SPREAD.toFixed(1)} * ball.y;
        shape = ball;
        gl_Position = projectionMatrix * modelViewMatrix * instanceMatrix * vec4(position, 1.0);
      }`,
    fragmentShader: `
      varying vec2 away, shape;
      void main() {
        float radius = shape.x, height = shape.y;
        float hidden = radius * radius * height / pow(dot(away, away) + height * height, 1.5);
        float rim = 1.0 - smoothstep(0.2, 1.0, length(away) / (height * ${SPREAD.toFixed(1)}));
        rim *= 1.0 - smoothstep(0.3, ${HIGH.toFixed(1)}, height);
        gl_FragColor = vec4(0.0, 0.0, 0.0, min(0.45 * hidden, 0.4) * rim);
      }`,
  });
}
