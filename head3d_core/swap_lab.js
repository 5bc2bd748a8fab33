// The plane-swap lab in the browser: controls, the heads A and B, the mixture and its difference to A, two bars. Everything shown is computed by Python
// (swap_lab.py); this file sends the state and shows what comes back. One request is under way at a time and only the
// newest state waits behind it, so the picture follows the hand however slow the machine is.

const STYLE = `
.swap-lab { display: flex; flex-wrap: wrap; gap: 16px; font: 14px sans-serif; align-items: flex-start; }
.swap-lab .pictures { display: flex; flex-wrap: wrap; gap: 8px; }
.swap-lab figure { margin: 0; width: 288px; }
.swap-lab img { width: 288px; height: 288px; border: 1px solid #777; image-rendering: pixelated; background: white; }
.swap-lab .thumbs { display: flex; flex-direction: column; gap: 8px; }
.swap-lab .thumbs figure { width: 128px; }
.swap-lab .thumbs img { width: 128px; height: 128px; image-rendering: auto; }
.swap-lab .legend { display: flex; flex-wrap: wrap; justify-content: space-between; margin: 4px 0; }
.swap-lab .legend img { height: 12px; image-rendering: auto; }
.swap-lab img.turn { cursor: grab; touch-action: none; user-select: none; }
.swap-lab img:focus-visible { outline: 3px solid #0072B2; }
.swap-lab .controls { display: grid; grid-template-columns: max-content 180px max-content; gap: 4px 10px;
  align-items: center; }
.swap-lab .heads { grid-column: 1 / -1; display: flex; gap: 8px; align-items: center; }
.swap-lab input[type=number] { width: 5em; }
.swap-lab .bar { position: relative; height: 14px; border: 1px solid #555; background: white; }
.swap-lab .bar div { position: absolute; top: 0; bottom: 0; left: 0; }
.swap-lab .bar .a { background: #0072B2; }
.swap-lab .bar .b { background: repeating-linear-gradient(45deg, #D55E00, #D55E00 5px, #fff 5px, #fff 8px); }
.swap-lab .says { grid-column: 1 / -1; min-height: 1.3em; }`;

function node(tag, options = {}, children = []) {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...children);
  return made;
}

function render({ model, el }) {
  const options = model.get("options");
  const state = structuredClone(model.get("state"));
  let busy = false, waiting = null, request = model.get("shown").request ?? 0;

  function send(finished) {
    if (busy) { waiting = { finished }; return; }
    busy = true;
    request += 1;
    model.set("wanted", { ...structuredClone(state), finished, request });
    model.save_changes();
  }

  // --- pictures
  const picture = node("img", { className: "turn", tabIndex: 0, draggable: false });
  const heat = node("img", { className: "heat" });
  const caption = node("figcaption"), heatCaption = node("figcaption");
  const percent = `${Math.round(100 * options.heat_limit)} %`;
  const legend = node("div", { className: "legend" }, [
    node("img", { src: `data:image/png;base64,${options.legend}`, alt: `colours from dark, no difference, to yellow, ${percent} and more` }),
    node("span", { textContent: "dark: 0 %" }), node("span", { textContent: `yellow: ${percent} and more` })]);
  const thumbs = ["A", "B"].map(() => ({ image: node("img"), name: node("figcaption") }));
  const pictures = node("div", { className: "pictures" }, [
    node("div", { className: "thumbs" }, thumbs.map((t) => node("figure", {}, [t.image, t.name]))),
    node("figure", {}, [picture, caption]), node("figure", {}, [heat, legend, heatCaption])]);

  // --- controls
  const controls = node("div", { className: "controls" });
  const sliders = {};
  function slider(key, label, low, high, step, read, write, text) {
    const id = `swap-${key}-${Math.random().toString(36).slice(2)}`;
    const input = node("input", { type: "range", id, min: low, max: high, step, value: read() });
    input.dataset.key = key;
    const value = node("span");
    const paint = () => { input.value = read(); value.textContent = text(read()); };
    input.addEventListener("input", () => { write(Number(input.value)); paint(); send(false); });
    input.addEventListener("change", () => { write(Number(input.value)); paint(); send(true); });
    controls.append(node("label", { htmlFor: id, textContent: label }), input, value);
    sliders[key] = paint;
    paint();
  }
  function head(side) {
    const choose = node("select", {}, options.generators.map((name) => node("option", { value: name, textContent: name })));
    choose.value = state[`generator_${side}`];
    choose.dataset.key = `generator_${side}`;
    choose.setAttribute("aria-label", `generator of head ${side.toUpperCase()}`);
    choose.addEventListener("change", () => { state[`generator_${side}`] = choose.value; send(true); });
    const seed = node("input", { type: "number", min: 0, max: 4294967295, step: 1, value: state[`seed_${side}`] });
    seed.dataset.key = `seed_${side}`;
    seed.setAttribute("aria-label", `seed of head ${side.toUpperCase()}`);
    seed.addEventListener("change", () => { state[`seed_${side}`] = Math.max(0, Math.floor(Number(seed.value) || 0)); send(true); });
    controls.append(node("div", { className: "heads" }, [`head ${side.toUpperCase()}:`, choose, "seed", seed]));
  }
  head("a");
  head("b");
  options.planes.forEach((name, k) => slider(`share_${name}`, `F_${name} from B`, 0, 1, 0.05,
    () => state.shares[k], (v) => { state.shares[k] = v; },
    (v) => (v === 0 ? "A" : v === 1 ? "B" : `${Math.round(100 * v)} % B`)));
  const degrees = (v) => `${v}°`;
  slider("yaw", "yaw", -180, 180, 5, () => state.yaw, (v) => { state.yaw = v; }, degrees);
  slider("pitch", "pitch", -options.max_pitch, options.max_pitch, 5, () => state.pitch, (v) => { state.pitch = v; }, degrees);
  const bars = {};
  for (const side of ["a", "b"]) {
    const fill = node("div", { className: side }), value = node("span");
    controls.append(node("span", { textContent: `identity: cosine to ${side.toUpperCase()}` }), node("div", { className: "bar" }, [fill]), value);
    bars[side] = { fill, value };
  }
  const says = node("div", { className: "says" });
  says.setAttribute("aria-live", "polite");
  controls.append(says);

  // --- the picture is turned by dragging it, or by the arrow keys
  const wrap = (yaw) => ((yaw + 540) % 360) - 180;
  const limit = (pitch) => Math.max(-options.max_pitch, Math.min(options.max_pitch, pitch));
  let grip = null;
  function turn(yaw, pitch, finished) {
    state.yaw = wrap(Math.round(yaw));
    state.pitch = limit(Math.round(pitch));
    sliders.yaw();
    sliders.pitch();
    send(finished);
  }
  picture.addEventListener("pointerdown", (event) => {
    grip = { x: event.clientX, y: event.clientY, yaw: state.yaw, pitch: state.pitch };
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener("pointermove", (event) => {
    // The side that is dragged follows the hand: to the right, the camera moves to the left.
    if (grip) turn(grip.yaw - (event.clientX - grip.x) / 2, grip.pitch + (event.clientY - grip.y) / 2, false);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    picture.addEventListener(kind, () => { if (grip) { grip = null; send(true); } });
  }
  const KEYS = { ArrowLeft: [-5, 0], ArrowRight: [5, 0], ArrowUp: [0, 5], ArrowDown: [0, -5] };
  picture.addEventListener("keydown", (event) => {
    if (!KEYS[event.key]) return;
    event.preventDefault();
    event.stopPropagation(); // the notebook would move to another cell
    turn(state.yaw + KEYS[event.key][0], state.pitch + KEYS[event.key][1], false);
  });
  picture.addEventListener("keyup", (event) => { if (KEYS[event.key]) send(true); });

  function paint() {
    const shown = model.get("shown");
    picture.src = `data:image/png;base64,${shown.picture}`;
    picture.style.imageRendering = shown.finished ? "auto" : "pixelated";
    picture.alt = shown.alt;
    picture.dataset.request = shown.request;
    picture.dataset.finished = shown.finished;
    heat.src = `data:image/png;base64,${shown.heat}`;
    heat.alt = `where the mixture differs from head A; ${shown.heat_says}`;
    heatCaption.textContent = shown.heat_says;
    caption.textContent = shown.finished ? "the mixture (drag to turn, or arrow keys)" : "the mixture, raw, while it changes";
    says.textContent = shown.says;
    if (shown.similarity) {
      ["a", "b"].forEach((side, k) => {
        bars[side].fill.style.width = `${100 * Math.max(0, shown.similarity[k])}%`;
        bars[side].value.textContent = shown.similarity[k].toFixed(2);
      });
    }
  }
  function paintThumbs() {
    model.get("portraits").forEach(({ picture, name }, k) => {
      thumbs[k].image.src = `data:image/png;base64,${picture}`;
      thumbs[k].image.alt = `${name}, from the front, no plane exchanged`;
      thumbs[k].name.textContent = name;
    });
  }
  function arrived() {
    paint();
    if (model.get("shown").request !== request) return;
    busy = false;
    if (waiting) { const { finished } = waiting; waiting = null; send(finished); }
  }
  model.on("change:shown", arrived);
  model.on("change:portraits", paintThumbs);
  paint();
  paintThumbs();
  const lab = node("div", { className: "swap-lab" }, [pictures, controls]);
  lab.addEventListener("keydown", (event) => event.stopPropagation()); // or JupyterLab moves between cells by arrow keys
  el.append(node("style", { textContent: STYLE }), lab);
  return () => { model.off("change:shown", arrived); model.off("change:portraits", paintThumbs); };
}

export default { render };
