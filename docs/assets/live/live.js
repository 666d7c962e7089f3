// The live parts of the site: <div class="live" data-live="NAME">. Nothing is loaded before the first press of Run.
(() => {
  "use strict";
  const root = new URL("../../", document.currentScript.src);
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const json = async (name) => {
    const answer = await fetch(new URL("made/live/" + name, root)).catch(() => null);
    if (!answer || !answer.ok) throw new Error("open the site with `minialex docs`: pages on a disk may not load parts");
    return answer.json();
  };

  // ---- the one worker ----
  let worker = null, settings = null, number = 0;
  const waiting = new Map();
  async function ask(name, args, { file = null, told = () => {}, status = () => {} } = {}) {
    if (!settings) {
      const found = await json("settings.json");
      settings = { pyodide: new URL(found.pyodide, root).href, wheel: new URL("made/live/" + found.wheel, root).href };
    }
    if (!worker) {
      worker = new Worker(new URL("assets/live/worker.js", root));
      worker.onmessage = ({ data }) => {
        if ("status" in data) return waiting.forEach((one) => one.status(data.status));
        const one = waiting.get(data.id);
        if ("told" in data) return one.told(data.told);
        waiting.delete(data.id);
        if ("error" in data) one.no(new Error(data.error)); else one.yes(data.result);
      };
      worker.onerror = (event) => {
        waiting.forEach((one) => one.no(new Error(event.message || "the worker could not be started")));
        waiting.clear();
        worker = null;
      };
    }
    return new Promise((yes, no) => {
      waiting.set(++number, { yes, no, told, status });
      worker.postMessage({ id: number, name, args, file, settings });
    });
  }

  // ---- pieces of a part ----
  function slider(form, label, name, low, high, step, value) {
    const shown = make("output", {}, String(value));
    const input = make("input", { type: "range", name, min: low, max: high, step, value });
    input.addEventListener("input", () => { shown.textContent = input.value; });
    form.append(make("label", {}, make("span", {}, label + " ", shown), input));
    return () => Number(input.value);
  }
  function paint(canvas, x, low = Math.min(...x.data), high = Math.max(...x.data)) {
    const [H, W] = x.shape.slice(-2), colours = x.shape.length > 2 ? x.shape[x.shape.length - 3] : 1;
    canvas.width = W; canvas.height = H;
    canvas.style.width = Math.max(W, 168) + "px";
    const image = new ImageData(W, H);
    for (let i = 0; i < H * W; i++) {
      for (let c = 0; c < 3; c++) {
        image.data[4 * i + c] = 255 * (x.data[(colours === 3 ? c * H * W : 0) + i] - low) / (high - low || 1);
      }
      image.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
  const figure = (box, caption, alt) => {
    const canvas = make("canvas", { role: "img", "aria-label": alt });
    box.append(make("figure", {}, canvas, make("figcaption", {}, caption)));
    return canvas;
  };
  function bars(box, top) {
    box.replaceChildren(...top.map(([title, p]) => {
      const bar = make("i"); bar.style.width = (100 * p) + "%";
      return make("div", { class: "bar" }, make("span", {}, title), bar, make("span", {}, (100 * p).toFixed(2) + " %"));
    }));
  }
  // A drawn picture, the same for everybody: a disc, a bar and a ramp.
  function sample(size, colours) {
    const data = new Float32Array(colours * size * size);
    for (let i = 0; i < size; i++) for (let j = 0; j < size; j++) {
      const disc = Math.hypot(i - .4 * size, j - .4 * size) < .26 * size;
      const bar = Math.abs(i + j - 1.5 * size) < .08 * size;
      const rgb = disc ? [220, 60, 40] : bar ? [250, 210, 60] : [40 + 80 * j / size, 90 + 60 * i / size, 170];
      for (let c = 0; c < colours; c++) data[(c * size + i) * size + j] = colours === 3 ? Math.round(rgb[c])
        : Math.round((rgb[0] + rgb[1] + rgb[2]) / 3);
    }
    return data;
  }
  async function readPicture(file, size) {
    let bitmap;
    try { bitmap = await createImageBitmap(file); } catch { throw new Error("the browser cannot read this file as a picture"); }
    const canvas = make("canvas", { width: size, height: size }), pen = canvas.getContext("2d");
    const side = Math.min(bitmap.width, bitmap.height); // as in 2012: the middle square
    pen.drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, size, size);
    const pixels = pen.getImageData(0, 0, size, size).data, data = new Float32Array(3 * size * size);
    for (let i = 0; i < size * size; i++) for (let c = 0; c < 3; c++) data[c * size * size + i] = pixels[4 * i + c];
    return data;
  }
  // A picture to draw on: pointer, or arrow keys and space.
  function board(box, size, data, changed) {
    const canvas = make("canvas", { tabindex: "0", role: "application",
      "aria-label": "Picture to draw on: arrow keys move, space draws" });
    box.append(make("figure", {}, canvas, make("figcaption", {}, "draw here (pointer, or arrow keys and space)")));
    let at = [size >> 1, size >> 1];
    const show = () => paint(canvas, { shape: [size, size], data }, 0, 255);
    const dot = (i, j) => {
      for (let a = 0; a < 2; a++) for (let b = 0; b < 2; b++) if (i + a < size && j + b < size) data[(i + a) * size + j + b] = 255;
      show(); changed();
    };
    const point = (event) => {
      if (event.buttons !== 1) return;
      const r = canvas.getBoundingClientRect();
      dot(Math.floor((event.clientY - r.top) / r.height * size), Math.floor((event.clientX - r.left) / r.width * size));
    };
    canvas.style.touchAction = "none";
    canvas.addEventListener("pointerdown", point); canvas.addEventListener("pointermove", point);
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (step) at = at.map((v, k) => Math.min(size - 1, Math.max(0, v + step[k])));
      else if (event.key === " ") dot(...at); else return;
      event.preventDefault();
    });
    show();
  }

  // A part that recomputes with the reference: `build` adds controls and says how to ask and how to show.
  function computed(node, build) {
    const form = make("form"), box = make("div", { class: "pictures" }), say = make("p", { class: "say", role: "status", "aria-live": "polite" });
    const run = make("button", { type: "submit" }, "Run");
    let busy = false, again = false, ready = false;
    const compute = async () => {
      if (busy) { again = true; return; }
      busy = true; run.disabled = !ready;
      try {
        do {
          again = false;
          const { name, args } = part.ask();
          const result = await ask(name, args, { status: (text) => { say.textContent = text; } });
          ready = true; run.disabled = false;
          say.className = "say"; say.textContent = part.show(result);
          node.result = result; node.asked = args;
          node.dataset.runs = Number(node.dataset.runs || 0) + 1;
        } while (again);
      } catch (error) {
        say.className = "say bad"; say.textContent = error.message; node.dataset.failed = error.message;
      } finally { busy = false; run.disabled = false; }
    };
    const changed = () => { if (ready) compute(); };
    const part = build(form, box, changed);
    form.append(run);
    form.addEventListener("submit", (event) => { event.preventDefault(); compute(); });
    form.addEventListener("input", changed);
    node.append(form, say, box);
  }
  const KERNELS = { "vertical edges": [-1, 0, 1, -2, 0, 2, -1, 0, 1], "horizontal edges": [-1, -2, -1, 0, 0, 0, 1, 2, 1],
    blur: Array(9).fill(1 / 9), sharpen: [0, -1, 0, -1, 5, -1, 0, -1, 0] };
  function kernels(form) {
    const select = make("select", { name: "kernel" }, ...Object.keys(KERNELS).map((name) => make("option", {}, name)));
    form.append(make("label", {}, "kernel", select));
    return () => KERNELS[select.value];
  }
  const SIZE = 32;
  const parts = {
    convolution: (node) => computed(node, (form, box, changed) => {
      const data = sample(SIZE, 1), kernel = kernels(form);
      const stride = slider(form, "stride", "stride", 1, 4, 1, 1), padding = slider(form, "padding", "padding", 0, 3, 1, 1);
      board(box, SIZE, data, changed);
      const out = figure(box, "what the kernel finds", "Result of the convolution");
      return { ask: () => ({ name: "convolution", args: { image: data.slice(), height: SIZE, width: SIZE, kernel: kernel(), stride: stride(), padding: padding() } }),
        show: (y) => { paint(out, y); return `${SIZE} × ${SIZE} → ${y.shape[2]} × ${y.shape[3]}, from ${Math.min(...y.data).toFixed(1)} to ${Math.max(...y.data).toFixed(1)}`; } };
    }),
    relu: (node) => computed(node, (form, box, changed) => {
      const data = sample(SIZE, 1), kernel = kernels(form), bias = slider(form, "bias", "bias", -300, 300, 10, 0);
      board(box, SIZE, data, changed);
      const before = figure(box, "before", "Convolution with bias"), after = figure(box, "after ReLU: negative is 0", "After ReLU");
      return { ask: () => ({ name: "relu", args: { image: data.slice(), height: SIZE, width: SIZE, kernel: kernel(), bias: bias() } }),
        show: (y) => { paint(before, y.before); paint(after, y); return `${(100 * y.silent).toFixed(1)} % of the neurons are silent`; } };
    }),
    normalisation: (node) => computed(node, (form, box) => {
      const loud = slider(form, "channel 6", "loud", 0, 200, 5, 100), size = slider(form, "n", "size", 1, 11, 2, 5);
      const k = slider(form, "k", "k", 1, 4, .5, 2), alpha = slider(form, "α", "alpha", 0, .01, .0001, .0001), beta = slider(form, "β", "beta", 0, 1, .05, .75);
      const out = make("div"); out.style.width = "100%"; box.append(out);
      let x = [];
      return { ask: () => { x = Array.from({ length: 12 }, (_, c) => c === 6 ? loud() : 30); return { name: "normalisation", args: { values: x, size: size(), k: k(), alpha: alpha(), beta: beta() } }; },
        show: (y) => {
          const top = Math.max(...y.data, 1e-9);
          out.replaceChildren(...Array.from(y.data, (v, c) => { const i = make("i"); i.style.width = 100 * v / top + "%"; return make("div", { class: "bar" }, make("span", {}, `channel ${c}: ${x[c]} →`), i, make("span", {}, v.toFixed(2))); }));
          return `channel 6: ${x[6]} → ${y.data[6].toFixed(3)}; its neighbour 5: ${x[5]} → ${y.data[5].toFixed(3)}`;
        } };
    }),
    pooling: (node) => computed(node, (form, box, changed) => {
      const data = sample(SIZE, 1), size = slider(form, "size", "size", 1, 6, 1, 3), stride = slider(form, "stride", "stride", 1, 6, 1, 2);
      board(box, SIZE, data, changed);
      const out = figure(box, "the largest of each window", "Result of pooling");
      return { ask: () => ({ name: "pooling", args: { image: data.slice(), height: SIZE, width: SIZE, size: size(), stride: stride() } }),
        show: (y) => { paint(out, y, 0, 255); return `${SIZE} × ${SIZE} → ${y.shape[2]} × ${y.shape[3]}; windows ${size() > stride() ? "overlap, as in the paper" : "do not overlap"}`; } };
    }),
    colour: (node) => computed(node, (form, box) => {
      const side = 64, data = sample(side, 3), draws = [1, 2, 3].map((i) => slider(form, "α" + i, "alpha" + i, -1, 1, .05, 0));
      paint(figure(box, "the picture", "A picture of a red disc and a yellow bar"), { shape: [3, side, side], data }, 0, 255);
      const out = figure(box, "its colours shifted", "The picture with its colours shifted");
      return { ask: () => ({ name: "colour", args: { image: data, height: side, width: side, draws: draws.map((d) => d()) } }),
        show: (y) => { paint(out, y, 0, 255); return "added to red, green, blue: " + Array.from(y.shift, (v) => v.toFixed(1)).join(", "); } };
    }),
    network: (node) => whole(node, "Run all 60,965,224 parameters", null),
    classify: (node) => whole(node, "Classify", "classify.safetensors"),
    calculator, columns,
  };

  // ---- a whole network ----
  function whole(node, title, shipped) {
    const form = make("form"), say = make("p", { class: "say", role: "status", "aria-live": "polite" });
    const walk = make("div", { class: "walk" }), top = make("div");
    const picture = make("input", { type: "file", accept: "image/*", name: "picture" });
    const weights = make("input", { type: "file", accept: ".safetensors", name: "weights" });
    const run = make("button", { type: "submit" }, title);
    form.append(make("label", {}, "your picture (else a drawn one)", picture));
    if (!shipped) form.append(make("label", {}, "your .safetensors weights (else drawn)", weights));
    form.append(run);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      run.disabled = true; walk.replaceChildren(); top.replaceChildren(); say.className = "say"; delete node.dataset.failed;
      const status = (text) => { say.textContent = text || "computing"; };
      try {
        let file = weights.files[0] || null;
        if (shipped) {
          const answer = await fetch(new URL("assets/live/" + shipped, root)).catch(() => null);
          if (!answer || !answer.ok) throw new Error("the trained network cannot be loaded");
          file = await answer.blob();
        }
        const { size } = await ask("wanted", {}, { file, status });
        const image = picture.files[0] ? await readPicture(picture.files[0], size) : sample(size, 3);
        let done = 0;
        const told = (layer) => {
          done += 1;
          say.textContent = `layer ${done}: ${layer.layer}`;
          const box = make("div");
          layer.pieces.forEach((piece, column) => {
            const canvas = make("canvas", { class: "c" + column, role: "img", "aria-label": `${layer.layer}, column ${column}` });
            const [H, W] = [piece.height, piece.width], image = new ImageData(W, H);
            canvas.width = W; canvas.height = H;
            for (let i = 0; i < H * W; i++) { image.data.fill(piece.data[i], 4 * i, 4 * i + 3); image.data[4 * i + 3] = 255; }
            canvas.getContext("2d").putImageData(image, 0, 0);
            box.append(canvas);
          });
          const drawn = layer.weights_seconds > .01 ? `, weights ${layer.weights_seconds.toFixed(1)} s` : "";
          box.append(`${layer.layer}: ${layer.columns} × ${Array.from(layer.shape).join(" × ")}, ${(1000 * layer.seconds).toFixed(0)} ms${drawn}`);
          walk.append(box);
        };
        const result = await ask("network", { image, size }, { file, told, status });
        bars(top, Array.from(result.top, (one) => Array.from(one)));
        const own = shipped || weights.files[0] ? "read" : "drawn by the library's generator: untrained, so all classes are about alike";
        say.textContent = `${result.parameters.toLocaleString("en")} parameters in ${result.seconds.toFixed(1)} s, of which ${result.weights_seconds.toFixed(1)} s for the weights (${own})`;
        node.result = result; node.asked = { image, size };
        node.dataset.runs = Number(node.dataset.runs || 0) + 1;
      } catch (error) {
        say.className = "say bad"; say.textContent = error.message; node.dataset.failed = error.message;
      } finally { run.disabled = false; }
    });
    node.append(form, say, top, walk);
  }

  // ---- without Python ----
  async function calculator(node) {
    const cases = await json("calculator.json"), form = make("form"), say = make("p", { class: "say", role: "status", "aria-live": "polite" });
    const field = (label, name, value, low) => {
      const input = make("input", { type: "number", name, min: low, max: 4096, value });
      form.append(make("label", {}, label, input));
      return () => Number(input.value);
    };
    const d = cases.defaults;
    const get = { channels: field("channels in", "channels", d.channels, 1), size: field("rows and columns", "size", d.size, 1),
      kernels: field("kernels", "kernels", d.kernels, 1), kernel: field("kernel size", "kernel", d.kernel, 1),
      stride: field("stride", "stride", d.stride, 1), before: field("padding above", "before", d.before, 0), after: field("padding below", "after", d.after, 0) };
    const show = () => {
      const v = Object.fromEntries(Object.entries(get).map(([name, f]) => [name, f()]));
      const wrong = Object.entries(v).find(([name, n]) => !Number.isInteger(n) || n < (["before", "after"].includes(name) ? 0 : 1));
      const P = Math.floor((v.size + v.before + v.after - v.kernel) / v.stride) + 1;
      say.className = "say";
      if (wrong || P < 1) {
        say.className = "say bad";
        say.textContent = wrong ? "whole numbers only, none below its least" : "the kernel is larger than the padded picture";
        return;
      }
      const parameters = v.kernels * (v.channels * v.kernel ** 2 + 1), macs = v.kernels * P * P * v.channels * v.kernel ** 2;
      node.result = { output: [v.kernels, P, P], parameters, multiply_adds: macs };
      say.textContent = `output ${v.kernels} × ${P} × ${P}; ${parameters.toLocaleString("en")} parameters; ${macs.toLocaleString("en")} multiply-adds an image`;
    };
    form.addEventListener("input", show); form.addEventListener("submit", (event) => event.preventDefault());
    node.append(form, say); show();
  }
  async function columns(node) {
    const { layers } = await json("columns.json");
    const form = make("form"), select = make("select", { name: "layer" }, ...layers.map((l) => make("option", {}, l.layer)));
    const say = make("p", { class: "say", role: "status", "aria-live": "polite" });
    form.append(make("label", {}, "layer", select));
    const show = () => {
      const l = layers[select.selectedIndex];
      node.result = l;
      say.textContent = `${l.layer} (${l.kind}), ${l.columns === 1 ? "one column" : l.columns + " columns"} of ${l.output.join(" × ")}; reads ${l.reads}; ` +
        `${l.parameters.toLocaleString("en")} parameters; ` + (l.received ? `${l.received.toLocaleString("en")} values cross between the columns for every image` : "nothing crosses");
    };
    form.addEventListener("input", show); form.addEventListener("submit", (event) => event.preventDefault());
    node.append(form, say); show();
  }

  for (const node of document.querySelectorAll(".live[data-live]")) {
    const build = parts[node.dataset.live];
    if (build) Promise.resolve(build(node)).catch((error) => node.append(make("p", { class: "say bad" }, error.message)));
  }
})();
