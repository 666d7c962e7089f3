// The live parts of the site: <div class="live" data-live="NAME">. This file is on every page and loads the others where
// there is such a part; Python is loaded at the first press of a button. Plain scripts, since pages also open from a disk.
(() => {
  "use strict";
  const root = new URL("../../", document.currentScript.src);
  const builders = {};
  const FILES = {
    convolution: "operations.js", relu: "operations.js", normalisation: "operations.js", pooling: "operations.js",
    colour: "operations.js", calculator: "widgets.js", columns: "widgets.js", wires: "widgets.js", network: "network.js", classify: "network.js",
  };

  // ---- pieces of a page ----
  function make(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  }
  const words = () => make("p", { class: "say", role: "status", "aria-live": "polite" });
  function fail(say, node, message) {
    say.className = "say bad";
    say.textContent = message;
    node.dataset.failed = message;
  }
  function succeed(say, node, message) {
    say.className = "say";
    say.textContent = message;
    delete node.dataset.failed;
    node.dataset.runs = Number(node.dataset.runs || 0) + 1;
  }
  async function json(name) {
    const answer = await fetch(new URL("made/live/" + name, root)).catch(() => null);
    if (!answer || !answer.ok) throw new Error("a page that is opened from a disk cannot load this part: run `minialex docs`");
    return answer.json();
  }

  // ---- the one worker of the page ----
  let worker = null, settings = null, number = 0;
  const waiting = new Map();
  function abandon(message) {
    if (worker) worker.terminate();
    worker = null;
    waiting.forEach((one) => one.no(new Error(message)));
    waiting.clear();
  }
  function started() {
    const made = new Worker(new URL("assets/live/worker.js", root));
    made.onmessage = ({ data }) => {
      if ("status" in data) {
        waiting.forEach((one) => one.status(data.status));
        return;
      }
      const one = waiting.get(data.id);
      if ("told" in data) {
        one.told(data.told);
        return;
      }
      waiting.delete(data.id);
      if ("error" in data) one.no(new Error(data.error));
      else one.yes(data.result);
    };
    made.onerror = (event) => abandon(event.message || "the browser cannot start a worker: open the site with `minialex docs`");
    return made;
  }
  // A function of minialex.site.live, in Python, in the worker. `file` is read by it piece by piece.
  async function ask(name, args, { file = null, told = () => {}, status = () => {} } = {}) {
    if (!settings) {
      const found = await json("settings.json");
      settings = { pyodide: new URL(found.pyodide, root).href, wheel: new URL("made/live/" + found.wheel, root).href };
    }
    worker = worker || started();
    return new Promise((yes, no) => {
      number += 1;
      waiting.set(number, { yes, no, told, status });
      worker.postMessage({ id: number, name, args, file, settings });
    });
  }

  // ---- pictures ----
  // Numbers [H,W] or [3,H,W] on a canvas, `low` black and `high` white.
  function paint(canvas, { shape, data }, low = Math.min(...data), high = Math.max(...data)) {
    const [height, width] = shape.slice(-2), places = height * width;
    const colours = shape.length > 2 && shape[shape.length - 3] === 3;
    canvas.width = width;
    canvas.height = height;
    const image = new ImageData(width, height);
    for (let i = 0; i < places; i++) {
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = 255 * (data[(colours ? c * places : 0) + i] - low) / (high - low || 1);
      image.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
  function figure(box, caption, alt) {
    const canvas = make("canvas", { role: "img", "aria-label": alt });
    box.append(make("figure", {}, canvas, make("figcaption", {}, caption)));
    return canvas;
  }
  // A drawn picture, the same for everybody: a disc, a bar and a ramp; flat, [colours,size,size].
  function sample(size, colours) {
    const data = new Float32Array(colours * size * size);
    for (let i = 0; i < size; i++) {
      for (let j = 0; j < size; j++) {
        const disc = Math.hypot(i - 0.4 * size, j - 0.4 * size) < 0.26 * size;
        const bar = Math.abs(i + j - 1.5 * size) < 0.08 * size;
        const rgb = disc ? [220, 60, 40] : bar ? [250, 210, 60] : [40 + 80 * j / size, 90 + 60 * i / size, 170];
        const grey = Math.round((rgb[0] + rgb[1] + rgb[2]) / 3);
        for (let c = 0; c < colours; c++) data[(c * size + i) * size + j] = colours === 3 ? Math.round(rgb[c]) : grey;
      }
    }
    return data;
  }
  // The middle square of the reader's picture, as in 2012; flat, [colours,size,size]. It goes nowhere.
  async function readPicture(file, size, colours = 3) {
    let bitmap;
    try {
      bitmap = await createImageBitmap(file);
    } catch {
      throw new Error(`the browser cannot read ${file.name} as a picture`);
    }
    const canvas = make("canvas", { width: size, height: size }), pen = canvas.getContext("2d");
    const side = Math.min(bitmap.width, bitmap.height);
    pen.imageSmoothingQuality = "high";
    pen.drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, size, size);
    const pixels = pen.getImageData(0, 0, size, size).data, places = size * size;
    const data = new Float32Array(colours * places);
    for (let i = 0; i < places; i++) {
      const rgb = pixels.subarray(4 * i, 4 * i + 3);
      if (colours === 3) for (let c = 0; c < 3; c++) data[c * places + i] = rgb[c];
      else data[i] = Math.round((rgb[0] + rgb[1] + rgb[2]) / 3);
    }
    return data;
  }
  function picker(label) {
    const input = make("input", { type: "file", accept: "image/*", name: "picture" });
    return { input, field: make("label", {}, label, input) };
  }

  function show(node) {
    const build = builders[node.dataset.live];
    if (!build || node.dataset.built) return;
    node.dataset.built = "yes";
    Promise.resolve(build(node)).catch((error) => node.append(make("p", { class: "say bad" }, error.message)));
  }
  window.minialexLive = {
    root, make, words, fail, succeed, json, ask, abandon, paint, figure, sample, readPicture, picker,
    add(more) {
      Object.assign(builders, more);
      document.querySelectorAll(".live[data-live]").forEach(show);
    },
  };
  function begin() {
    const names = [...document.querySelectorAll(".live[data-live]")].map((node) => FILES[node.dataset.live]);
    for (const name of new Set(names.filter(Boolean))) {
      document.head.append(make("script", { src: new URL("assets/live/" + name, root) }));
    }
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
