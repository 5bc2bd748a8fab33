// The plane-swap lab without Python: planes as textures, the renderer in a fragment shader (lab.glsl).
const LAYERS = 8;  // of four channels, a plane
const SIZES = [48, 64, 96, 128, 192, 256, 320];

const element = (id) => document.getElementById(id);
const base = document.currentScript?.dataset.base ?? "live/";

function program(gl, fragment) {
  const vertex = "#version 300 es\nin vec2 at; void main() { gl_Position = vec4(at, 0.0, 1.0); }";
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(made, shader);
  }
  gl.bindAttribLocation(made, 0, "at");
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return made;
}

async function download(file) {
  const answer = await fetch(base + file);
  if (!answer.ok) throw new Error(`${file} did not arrive (${answer.status}): reload the page`);
  const plain = answer.body.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(plain).arrayBuffer());
}

class Lab {
  constructor(canvas, index, fragment) {
    this.canvas = canvas;
    this.index = index;
    const gl = (this.gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true }));
    if (!gl) throw new Error("no WebGL 2");
    this.program = program(gl, fragment);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 3, -1, -1, 3]), gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
    this.names = Object.keys(index.generators);
    this.textures = {};
    this.block = gl.createBuffer();
    gl.uniformBlockBinding(this.program, gl.getUniformBlockIndex(this.program, "Head"), 0);
    this.state = { a: 0, b: 1, shares: [0, 0, 0], yaw: 0, pitch: 0 };
  }

  // The texture of one head; what is already here is not asked for again.
  async texture(name, k) {
    const key = `${name}-${k}`;
    this.textures[key] ??= download(this.index.generators[name].heads[k].file).then((bytes) => {
      const gl = this.gl, { size } = this.index.generators[name], made = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_2D_ARRAY, made);
      gl.texStorage3D(gl.TEXTURE_2D_ARRAY, 1, gl.RGBA8, size, size, 3 * LAYERS);
      gl.texSubImage3D(gl.TEXTURE_2D_ARRAY, 0, 0, 0, 0, size, size, 3 * LAYERS, gl.RGBA, gl.UNSIGNED_BYTE, bytes);
      for (const [what, how] of [[gl.TEXTURE_MIN_FILTER, gl.LINEAR], [gl.TEXTURE_MAG_FILTER, gl.LINEAR],
        [gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE], [gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE]])
        gl.texParameteri(gl.TEXTURE_2D_ARRAY, what, how);
      return made;
    });
    return this.textures[key];
  }

  // Draws one generator's head into a square of the canvas; shares exactly 0 or 1 read one head only.
  async draw(name, [x, y, side], state) {
    const gl = this.gl, g = this.index.generators[name];
    const [first, second] = await Promise.all([this.texture(name, state.a), this.texture(name, state.b)]);
    const { scale: scaleA, offset: offsetA } = g.heads[state.a], { scale: scaleB, offset: offsetB } = g.heads[state.b];
    const table = new Float32Array([...g.decoder, ...scaleA, ...offsetA, ...scaleB, ...offsetB]);
    gl.useProgram(this.program);
    gl.bindBufferBase(gl.UNIFORM_BUFFER, 0, this.block);
    gl.bufferData(gl.UNIFORM_BUFFER, table, gl.DYNAMIC_DRAW);
    const at = (what) => gl.getUniformLocation(this.program, what);
    [first, second].forEach((texture, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D_ARRAY, texture);
      gl.uniform1i(at(unit ? "second" : "first"), unit);
    });
    const { rotation, position } = camera(state.yaw, state.pitch, this.index.radius);
    gl.uniform3fv(at("shares"), state.shares);
    gl.uniformMatrix3fv(at("rotation"), false, rotation);
    gl.uniform3fv(at("position"), position);
    for (const [what, value] of [["focal", this.index.focal], ["near", g.near], ["far", g.far], ["box", g.box], ["size", g.size]])
      gl.uniform1f(at(what), value);
    gl.uniform4f(at("viewport"), x, y, side, side);
    gl.viewport(x, y, side, side);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  // Waits until the heads of the state are here, so that a frame's time is that of drawing.
  loaded() {
    return Promise.all(this.names.flatMap((n) => [this.texture(n, this.state.a), this.texture(n, this.state.b)]));
  }

  async frame(size) {
    const { canvas } = this;
    if (canvas.width !== 2 * size || canvas.height !== size) [canvas.width, canvas.height] = [2 * size, size];
    const state = { ...this.state, shares: [...this.state.shares] };
    for (const [k, name] of this.names.entries()) await this.draw(name, [k * size, 0, size], state);
    this.gl.finish();
  }

  // Pixels of one panel, rows from the top: what the tests compare with the package's own renderer.
  async pixels(name, size, state) {
    [this.canvas.width, this.canvas.height] = [2 * size, size];
    await this.draw(name, [0, 0, size], state);
    const bytes = new Uint8Array(4 * size * size);
    this.gl.readPixels(0, 0, size, size, this.gl.RGBA, this.gl.UNSIGNED_BYTE, bytes);
    const rows = [];
    for (let y = size - 1; y >= 0; --y) rows.push(...bytes.slice(4 * size * y, 4 * size * (y + 1)));
    return rows;
  }
}

// OpenCV axes (x right, y down, z forward) of a camera on a sphere that looks at the middle; angles in degrees.
function camera(yaw, pitch, radius) {
  const [turn, rise] = [yaw, Math.max(-89.9, Math.min(89.9, pitch))].map((d) => (d * Math.PI) / 180);
  const position = [Math.sin(turn) * Math.cos(rise), Math.sin(rise), Math.cos(turn) * Math.cos(rise)].map((v) => v * radius);
  const forward = position.map((v) => -v / radius);
  const right = [-forward[2], 0, forward[0]], length = Math.hypot(right[0], right[2]);
  right[0] /= length;
  right[2] /= length;
  const down = [
    forward[1] * right[2] - forward[2] * right[1],
    forward[2] * right[0] - forward[0] * right[2],
    forward[0] * right[1] - forward[1] * right[0],
  ];
  return { rotation: [...right, ...down, ...forward], position };
}

function controls(lab) {
  let wanted = false, busy = false, moving = 0, pixelTime = 0.3;  // milliseconds; measured from the first frame on
  const say = (text) => (element("status").textContent = text);
  const settle = () => {
    for (const [k, input] of [...document.querySelectorAll("[data-plane]")].entries()) input.value = lab.state.shares[k];
    element("yaw").value = lab.state.yaw;
    element("yaw-text").textContent = `${Math.round(lab.state.yaw)}°`;
    element("a").value = lab.state.a;
    element("b").value = lab.state.b;
  };
  const fitting = (still) => SIZES.findLast((side) => side * side * pixelTime < (still ? 800 : 60)) ?? SIZES[0];
  // One frame at a time; what changed meanwhile is in the next one. Fewer pixels while moving, on a slow machine.
  const redraw = async () => {
    settle();
    wanted = true;
    if (busy) return;
    busy = true;
    try {
      while (wanted) {
        wanted = false;
        const still = performance.now() - moving > 250;
        const size = fitting(still);
        await lab.loaded();
        const start = performance.now();
        await lab.frame(size);
        const probe = new Uint8Array(4);
        lab.gl.readPixels(0, 0, 1, 1, lab.gl.RGBA, lab.gl.UNSIGNED_BYTE, probe);  // waits for the GPU
        const took = performance.now() - start;
        pixelTime = took / size ** 2;
        if (still && fitting(true) > size) wanted = true;
        say(`${size}² pixels a head, ${(1000 / took).toPrecision(2)} frames a second`);
        await new Promise(requestAnimationFrame);
      }
    } catch (error) {
      say(`The picture could not be drawn: ${error.message}`);
    }
    busy = false;
  };
  const move = (change) => {
    Object.assign(lab.state, change);
    moving = performance.now();
    redraw();
    clearTimeout(move.later);
    move.later = setTimeout(redraw, 300);
  };
  const turn = (yaw, pitch) => move({ yaw: ((((yaw + 180) % 360) + 360) % 360) - 180, pitch: Math.max(-40, Math.min(40, pitch)) });
  document.querySelectorAll("[data-plane]").forEach((input, k) => {
    input.addEventListener("input", () => {
      const shares = [...lab.state.shares];
      shares[k] = Number(input.value);
      move({ shares });
    });
  });
  element("yaw").addEventListener("input", () => turn(Number(element("yaw").value), lab.state.pitch));
  for (const side of ["a", "b"]) element(side).addEventListener("change", () => move({ [side]: Number(element(side).value) }));
  document.querySelectorAll("[data-yaw]").forEach((b) => b.addEventListener("click", () => turn(Number(b.dataset.yaw), 0)));
  document.querySelectorAll("[data-shares]").forEach((b) =>
    b.addEventListener("click", () => move({ shares: b.dataset.shares.split(",").map(Number) })));
  const { canvas } = lab;
  canvas.addEventListener("pointerdown", (e) => canvas.setPointerCapture(e.pointerId));
  canvas.addEventListener("pointermove", (e) => {
    if (e.buttons) turn(lab.state.yaw - e.movementX * 0.6, lab.state.pitch + e.movementY * 0.3);
  });
  canvas.addEventListener("keydown", (e) => {
    const steps = { ArrowLeft: [10, 0], ArrowRight: [-10, 0], ArrowUp: [0, 5], ArrowDown: [0, -5] }[e.key];
    if (!steps) return;
    e.preventDefault();
    turn(lab.state.yaw + steps[0], lab.state.pitch + steps[1]);
  });
  return redraw;
}

async function start() {
  const index = await (await fetch(base + "heads.json")).json();
  const names = Object.keys(index.generators);
  for (const id of ["a", "b"])
    index.seeds.forEach((seed, k) => element(id).add(new Option(`Person ${k + 1} (seed ${seed})`, k)));
  const strips = () => names.forEach((n) => {
    const g = index.generators[n], image = new Image();
    image.src = base + g.strip;
    image.alt = `${g.title}: four heads, one a row, from eight sides. Behind the face generator's heads stands a second face.`;
    element("strips").append(image);
  });
  try {
    const fragment = await (await fetch(element("canvas").dataset.shader)).text();
    const lab = (window.lab = new Lab(element("canvas"), index, fragment));
    await controls(lab)();
  } catch (error) {
    element("live").hidden = true;
    element("status").textContent = `The live lab needs WebGL 2, which this browser does not offer (${error.message}). Here are stills instead.`;
    strips();
  }
  document.body.dataset.ready = "yes";
}
start();
