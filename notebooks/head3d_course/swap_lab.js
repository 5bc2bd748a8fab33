// The plane-swap lab in the browser: the mixture between its heads A and B, its difference to A, and the controls.
// Everything shown is computed by Python (swap_lab.py); this file sends the state and shows what comes back. One
// request is under way at a time and only the newest state waits behind it, so the picture follows the hand however
// slow the machine is. Every answer says which state it shows, and the controls follow it; a request that is not
// answered is reported. A is always solid and blue, B striped and orange, at the left and at the right.

const BUSY_AFTER = 300, SILENT_AFTER = 8000; // milliseconds
const SILENT = "No answer: is a cell running, or was the kernel restarted? After a restart, run this cell again.";

const STYLE = `
.jp-OutputArea:has(.swap-lab) > .jp-OutputArea-child:has(.jp-RenderedHTML) { display: none; } /* the still */
.swap-lab-frame { container-type: inline-size; width: 100%; }
.swap-lab { display: grid; grid-template-columns: 19fr 32fr 19fr 26fr; gap: 14px 16px; max-width: 1280px;
  font: 15px/1.35 sans-serif; align-items: start; width: 100%; }
.swap-lab figure { margin: 0; min-width: 0; }
.swap-lab img { display: block; width: 100%; aspect-ratio: 1; box-sizing: border-box; background: white;
  border: 1px solid #777; }
.swap-lab figcaption { margin-top: 4px; }
.swap-lab h4 { margin: 0 0 4px; font: bold 16px sans-serif; text-align: center; }
.swap-lab .end.a img { border: 4px solid #0072B2; }
.swap-lab .end.b img { border: 4px dashed #D55E00; }
.swap-lab .end { padding-top: 12%; }
.swap-lab .legend img { aspect-ratio: auto; height: 12px; }
.swap-lab .legend { margin-top: 6px; }
.swap-lab .legend div { display: flex; justify-content: space-between; flex-wrap: wrap; gap: 0 8px; white-space: nowrap; }
.swap-lab img.turn { cursor: grab; touch-action: none; user-select: none; }
.swap-lab img.turn:active { cursor: grabbing; }
.swap-lab :focus-visible { outline: 3px solid #0072B2; outline-offset: 1px; }
.swap-lab .choose { display: grid; grid-template-columns: max-content 1fr; gap: 4px 6px; margin-top: 6px; align-items: center; }
.swap-lab .choose input, .swap-lab .choose select { width: 100%; min-width: 0; box-sizing: border-box; font: inherit; }
.swap-lab .rows { display: grid; gap: 6px 8px; align-items: center; }
.swap-lab .planes { grid-column: 1 / 4; grid-template-columns: max-content max-content 1fr max-content 4.5em; }
.swap-lab .view { grid-template-columns: max-content 1fr 3em; }
.swap-lab .likeness { grid-template-columns: max-content 1fr 2.6em; margin-top: 8px; }
.swap-lab input[type=range] { width: 100%; min-width: 0; margin: 0; }
.swap-lab button { font: inherit; padding: 2px 10px; border-radius: 4px; background: white; color: black; cursor: pointer; }
.swap-lab button.a { border: 2px solid #0072B2; }
.swap-lab button.b { border: 2px dashed #D55E00; }
.swap-lab button[aria-pressed=true] { font-weight: bold; background: #cfe3f3; }
.swap-lab button.b[aria-pressed=true] { background: #fbe0cd; }
.swap-lab .bar { position: relative; height: 16px; border: 1px solid #555; background: white; }
.swap-lab .bar div { position: absolute; top: 0; bottom: 0; left: 0; }
.swap-lab .bar .a { background: #0072B2; }
.swap-lab .bar .b { background: repeating-linear-gradient(45deg, #D55E00, #D55E00 5px, #fff 5px, #fff 8px); }
.swap-lab .says { min-height: 1.3em; font-weight: bold; }
.swap-lab .note { grid-column: 1 / -1; font-size: 13px; }
.swap-lab .note:empty { display: none; }
.swap-lab[data-status=busy] .turn, .swap-lab[data-status=silent] .turn { opacity: 0.6; }
@container (max-width: 900px) {
  .swap-lab { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); }
  .swap-lab .end { padding-top: 0; }
  .swap-lab .end.a { order: 1; } .swap-lab .end.b { order: 2; }
  .swap-lab .mixture { order: 3; } .swap-lab .difference { order: 4; }
  .swap-lab .planes, .swap-lab .view { order: 5; grid-column: 1 / -1; }
}
@container (max-width: 480px) {
  .swap-lab { font-size: 14px; gap: 10px 8px; }
  .swap-lab .choose { grid-template-columns: minmax(0, 1fr); }
  .swap-lab .planes { grid-template-columns: max-content max-content minmax(60px, 1fr) max-content 3.5em; gap: 6px 4px; }
  .swap-lab button { padding: 2px 7px; }
}`;

function node(tag, options = {}, children = []) {
  const made = Object.assign(document.createElement(tag), options);
  made.append(...children);
  return made;
}

const png = (base64) => `data:image/png;base64,${base64}`;

function render({ model, el }) {
  const options = model.get("options");
  const state = structuredClone(model.get("state"));
  const view = Math.random().toString(36).slice(2); // two views of one widget share the model, but not this code
  let count = 0, asked = null, waiting = null, timers = [];

  function send(finished) {
    if (asked) { waiting = { finished }; return; }
    waiting = null;
    count += 1;
    model.set("wanted", { ...structuredClone(state), finished, request: `${view}-${count}` });
    model.save_changes();
  }
  function requested() { // by this view or by another one of the same widget: the newest request counts
    const wanted = model.get("wanted");
    if (!wanted.request.startsWith(view)) { waiting = null; adopt(wanted); }
    asked = wanted.request;
    timers.forEach(clearTimeout);
    timers = [setTimeout(() => status("busy"), BUSY_AFTER), setTimeout(giveUp, SILENT_AFTER)];
  }
  function giveUp() {
    status("silent");
    asked = null;
    if (waiting) send(waiting.finished);
  }
  function status(what) { // silence lasts until an answer comes
    if (what === "busy" && lab.dataset.status === "silent") return;
    lab.dataset.status = what;
    caption.textContent = what === "busy" ? "computing …" : model.get("shown").finished ? "drag to turn, or arrow keys" : "raw while it changes";
    says.textContent = what === "silent" ? SILENT : model.get("shown").says;
  }
  function adopt(shown) { // the controls show this state
    for (const key of Object.keys(state)) if (key in shown) state[key] = structuredClone(shown[key]);
    Object.values(sliders).forEach((paint) => paint());
    for (const key of ["a", "b"]) {
      if (!ends[key].typing) ends[key].seed.value = state[`seed_${key}`];
      ends[key].choose.value = state[`generator_${key}`];
    }
  }

  // --- pictures: A, the mixture, B, the difference
  const ends = {};
  function end(side, key) {
    const image = node("img"), name = node("figcaption");
    const choose = node("select", {}, options.generators.map((each) => node("option", { value: each, textContent: each })));
    choose.value = state[`generator_${key}`];
    choose.dataset.key = `generator_${key}`;
    choose.setAttribute("aria-label", `generator of head ${side}`);
    choose.addEventListener("change", () => { state[`generator_${key}`] = choose.value; send(true); });
    const largest = options.max_seed;
    const seed = node("input", { type: "number", min: 0, max: largest, step: 1, value: state[`seed_${key}`] });
    seed.dataset.key = `seed_${key}`;
    seed.setAttribute("aria-label", `seed of head ${side}`);
    const note = node("div", { className: "note" });
    note.dataset.key = `note_${key}`;
    note.setAttribute("aria-live", "polite");
    seed.addEventListener("input", () => { ends[key].typing = true; });
    seed.addEventListener("change", () => {
      ends[key].typing = false;
      const typed = seed.value.trim(), number = Math.floor(Number(typed));
      const used = typed === "" || !Number.isFinite(number) ? state[`seed_${key}`] : Math.max(0, Math.min(largest, number));
      note.textContent = String(used) === typed ? "" : `A seed is a whole number from 0 to ${largest}. Used: ${used}.`;
      seed.value = used;
      if (used === state[`seed_${key}`]) return;
      state[`seed_${key}`] = used;
      send(true);
    });
    ends[key] = { image, name, choose, seed, typing: false };
    return node("figure", { className: `end ${key}` }, [
      node("h4", { textContent: `head ${side}` }), image, name,
      node("div", { className: "choose" }, ["generator", choose, "seed", seed, note])]);
  }
  const picture = node("img", { className: "turn", tabIndex: 0, draggable: false });
  const heat = node("img", { className: "heat" });
  const caption = node("figcaption"), heatCaption = node("figcaption");
  const percent = `${Math.round(100 * options.heat_limit)} %`;
  const legend = node("div", { className: "legend" }, [
    node("img", { src: png(options.legend), alt: `colours from dark, no difference, to yellow, ${percent} and more` }),
    node("div", {}, [node("span", { textContent: "dark: 0 %" }), node("span", { textContent: `yellow: ${percent} and more` })])]);
  const likeness = node("div", { className: "rows likeness" });
  const bars = {};
  for (const side of ["a", "b"]) {
    const fill = node("div", { className: side }), value = node("span");
    likeness.append(node("span", { textContent: `cosine to ${side.toUpperCase()}` }), node("div", { className: "bar" }, [fill]), value);
    bars[side] = { fill, value };
  }

  // --- controls
  const sliders = {};
  function slider(key, label, low, high, step, read, write, text, described = label) {
    const id = `swap-${key}-${Math.random().toString(36).slice(2)}`;
    const input = node("input", { type: "range", id, min: low, max: high, step, value: read() });
    input.dataset.key = key;
    input.setAttribute("aria-label", described);
    const value = node("span");
    const paint = () => { input.value = read(); value.textContent = text(read()); input.setAttribute("aria-valuetext", text(read())); };
    input.addEventListener("input", () => { write(Number(input.value)); paint(); send(false); });
    input.addEventListener("change", () => { write(Number(input.value)); paint(); send(true); });
    sliders[key] = paint;
    return { label: node("label", { htmlFor: id, textContent: label }), input, value, paint };
  }
  const planes = node("div", { className: "rows planes controls" });
  const pressed = [];
  const pressAll = () => pressed.forEach((paint) => paint());
  function ownerButton(side, key, described, indices) {
    const share = side === "A" ? 0 : 1;
    const button = node("button", { type: "button", className: side.toLowerCase(), textContent: side });
    button.dataset.key = `${key}_${side.toLowerCase()}`;
    button.setAttribute("aria-label", `${described} from ${side}`);
    pressed.push(() => button.setAttribute("aria-pressed", indices.every((k) => state.shares[k] === share)));
    button.addEventListener("click", () => {
      indices.forEach((k) => { state.shares[k] = share; });
      options.planes.forEach((name) => sliders[`share_${name}`]());
      send(true);
    });
    return button;
  }
  options.planes.forEach((name, k) => {
    const row = slider(`share_${name}`, `F_${name}`, 0, 1, 0.05, () => state.shares[k], (v) => { state.shares[k] = v; },
      (v) => (v === 0 ? "A" : v === 1 ? "B" : `${Math.round(100 * v)} % B`), `share of B in F_${name}`);
    const plain = sliders[`share_${name}`];
    sliders[`share_${name}`] = () => { plain(); pressAll(); };
    row.input.addEventListener("input", pressAll);
    planes.append(row.label, ownerButton("A", `share_${name}`, `F_${name}`, [k]), row.input,
      ownerButton("B", `share_${name}`, `F_${name}`, [k]), row.value);
  });
  const every = options.planes.map((_, k) => k);
  planes.append(node("span", { textContent: "all" }), ownerButton("A", "all", "all planes", every), node("span"),
    ownerButton("B", "all", "all planes", every), node("span"));
  const angles = node("div", { className: "rows view controls" });
  const degrees = (v) => `${v}°`;
  for (const row of [
    slider("yaw", "yaw", -180, 180, 5, () => state.yaw, (v) => { state.yaw = v; }, degrees),
    slider("pitch", "pitch", -options.max_pitch, options.max_pitch, 5, () => state.pitch, (v) => { state.pitch = v; }, degrees),
  ]) angles.append(row.label, row.input, row.value);
  for (const key of [...options.planes.map((name) => `share_${name}`), "yaw", "pitch"]) sliders[key]();
  const says = node("div", { className: "says" });
  says.setAttribute("aria-live", "polite");

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
    picture.src = png(shown.picture);
    picture.style.imageRendering = shown.finished ? "auto" : "pixelated";
    picture.alt = shown.alt;
    picture.dataset.request = shown.request;
    picture.dataset.finished = shown.finished;
    heat.src = png(shown.heat);
    heat.style.imageRendering = "pixelated";
    heat.alt = `where the mixture differs from head A; ${shown.heat_says}`;
    heatCaption.textContent = shown.heat_says;
    if (shown.ends) { // A and B turn with the mixture; they get sharp when their portraits arrive
      ["a", "b"].forEach((side, k) => { ends[side].image.src = png(shown.ends[k]); });
    }
    if (shown.similarity) {
      ["a", "b"].forEach((side, k) => {
        bars[side].fill.style.width = `${100 * Math.max(0, shown.similarity[k])}%`;
        bars[side].value.textContent = shown.similarity[k].toFixed(2);
      });
    }
  }
  function paintEnds() {
    model.get("portraits").forEach(({ picture, name, alt }, k) => {
      const { image, name: words } = ends["ab"[k]];
      image.src = png(picture);
      image.alt = alt;
      words.textContent = name;
    });
  }
  function arrived() {
    const { request, state: shown } = model.get("shown");
    paint();
    if (asked && request !== asked) return; // an older request: the newest is still under way
    asked = null;
    timers.forEach(clearTimeout);
    status("");
    if (waiting) send(waiting.finished);
    else adopt(shown);
  }
  const lab = node("div", { className: "swap-lab" }, [
    end("A", "a"),
    node("figure", { className: "mixture" }, [node("h4", { textContent: "the mixture" }), picture, caption, says, likeness]),
    end("B", "b"),
    node("figure", { className: "difference" }, [node("h4", { textContent: "difference to A" }), heat, legend, heatCaption]),
    planes, angles]);
  const listeners = { "change:wanted": requested, "change:shown": arrived, "change:portraits": paintEnds };
  for (const [name, listener] of Object.entries(listeners)) model.on(name, listener);
  paint();
  paintEnds();
  adopt(model.get("shown").state);
  status("");
  lab.addEventListener("keydown", (event) => { // or JupyterLab moves between cells by arrow keys; Ctrl+S is still its own
    if (!event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
  el.append(node("style", { textContent: STYLE }), node("div", { className: "swap-lab-frame" }, [lab]));
  return () => {
    timers.forEach(clearTimeout);
    for (const [name, listener] of Object.entries(listeners)) model.off(name, listener);
  };
}

export default { render };
