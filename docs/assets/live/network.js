// A whole network in the page: its two columns light up layer by layer as the worker computes them.
(() => {
  "use strict";
  const { root, make, words, fail, succeed, json, ask, abandon, paint, sample, readPicture, picker, add } = window.minialexLive;
  const counted = (number) => number.toLocaleString("en");
  const seconds = (value) => (value < 0.9995 ? `${(1000 * value).toFixed(0)} ms` : `${value.toFixed(1)} s`);
  const STARTS = ["Conv2d", "MaxPool2d", "Linear"]; // a layer of these kinds begins a row; the others belong to it
  const SVG = "http://www.w3.org/2000/svg";

  // The arrows above a row: from the picture to all, straight in each column, or across where a layer reads both.
  function arrows(columns, from, both) {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 100 12");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    const place = (n) => 17.5 + 65 * n; // the middle of a column, as live.css lays them out
    for (let source = 0; source < Math.max(from, 1); source++) {
      for (let target = 0; target < columns; target++) {
        if (source !== target && !both && from > 0) continue;
        const line = document.createElementNS(SVG, "line");
        const ends = { x1: from ? place(source) : 50, y1: 0, x2: place(target), y2: 12 };
        for (const [name, value] of Object.entries(ends)) line.setAttribute(name, value);
        line.setAttribute("class", (from ? source : target) ? "two" : "one");
        svg.append(line);
      }
    }
    return svg;
  }

  // How large the picture of a column's numbers will be (see `_mosaic` in minialex/site/live.py), so that nothing jumps.
  function extent([channels, height, width]) {
    if (height === undefined) return channels >= 64 ? [64, Math.floor(channels / 64)] : [channels, 1];
    const shown = Math.min(48, channels), across = Math.min(8, shown);
    return [across * width, Math.floor(shown / across) * height];
  }

  // The drawing of a network: the picture on top, then a row for each block of layers.
  function drawing(layers) {
    const box = make("div", { class: "columns-walk" });
    const image = make("canvas", { role: "img", "aria-label": "The picture as the network is given it" });
    box.append(make("div", { class: "given" }, image));
    const rows = new Map();
    let row = null, before = 0;
    for (const layer of layers) {
      if (STARTS.includes(layer.kind) || !row) {
        const [width, height] = extent(layer.output);
        const canvases = Array.from({ length: layer.columns }, (_, n) => make("canvas", {
          class: n ? "two" : "one", role: "img", "aria-label": `${layer.layer}, column ${n + 1}: not computed yet`, width, height,
        }));
        const shape = layer.output.join(" × "), time = make("div", { class: "time" });
        const number = layer.parameters ? `${counted(layer.parameters)} parameters` : "";
        const about = make("div", { class: "about" }, make("b", {}, layer.layer), make("span", {}, shape), make("span", {}, number), time);
        const part = make("div", { class: "row" + (layer.columns === 1 ? " single" : "") }, ...canvases.slice(0, 1), about, ...canvases.slice(1));
        box.append(arrows(layer.columns, before, layer.reads === "both columns"), part);
        row = { name: layer.layer, part, canvases, time, spent: 0, weights: 0, parameters: layer.parameters, flat: layer.output.length === 1 };
        before = layer.columns;
      }
      rows.set(layer.layer, row);
    }
    const order = layers.map((layer) => layer.layer);
    return {
      box, image,
      // What comes after a layer, in words.
      following(name) {
        const at = order.indexOf(name) + 1;
        box.querySelectorAll(".now").forEach((one) => one.classList.remove("now"));
        if (at >= order.length) return "";
        const next = rows.get(order[at]);
        next.part.classList.add("now");
        const own = order[at] === next.name && next.parameters ? ` (${counted(next.parameters)} parameters)` : "";
        return `computing ${order[at]}${own}`;
      },
      // What was computed before: pictures of a column's numbers, to be seen until the reader presses the button.
      async recorded(layers) {
        for (const { layer, shape, pieces } of layers) {
          const found = rows.get(layer);
          await Promise.all(pieces.map(async (address, n) => {
            const picture = new Image(), canvas = found.canvases[n];
            picture.src = address;
            await picture.decode();
            canvas.width = picture.width;
            canvas.height = picture.height;
            canvas.getContext("2d").drawImage(picture, 0, 0);
            canvas.setAttribute("aria-label", `${layer}, column ${n + 1}: ${shape.join(" × ")} numbers as grey, recorded`);
          }));
          found.part.classList.add("done");
        }
      },
      told(layer) {
        const found = rows.get(layer.layer);
        const shown = layer.shape.length > 1 || found.flat ? layer.pieces : []; // a map that was only laid flat stays a map
        shown.forEach((piece, n) => {
          const canvas = found.canvases[n];
          paint(canvas, { shape: [piece.height, piece.width], data: piece.data }, 0, 255);
          canvas.setAttribute("aria-label", `${layer.layer}, column ${n + 1}: ${Array.from(layer.shape).join(" × ")} numbers as grey`);
        });
        found.part.classList.add("done");
        found.spent += layer.seconds;
        found.weights += layer.weights_seconds;
        const drawn = found.weights > 0.005 ? [make("span", {}, `weights ${seconds(found.weights)}`)] : [];
        found.time.replaceChildren(make("span", {}, seconds(found.spent)), ...drawn);
      },
    };
  }

  function bars(box, top) {
    const most = Math.max(...top.map(([, p]) => p));
    box.replaceChildren(...top.map(([title, p]) => {
      const bar = make("i");
      bar.style.width = 100 * p / Math.max(most, 1e-9) + "%";
      return make("div", { class: "bar" }, make("span", {}, title), bar, make("span", {}, (100 * p).toFixed(2) + " %"));
    }));
  }

  function whole(node, title, shipped) {
    const form = make("form"), say = words(), top = make("div", { class: "bars" }), place = make("div");
    const own = picker("your picture (or the drawn one)");
    const weights = make("input", { type: "file", accept: ".safetensors", name: "weights" });
    const run = make("button", { type: "submit" }, title), stop = make("button", { type: "button", class: "small" }, "Stop");
    form.append(own.field);
    if (!shipped) form.append(make("label", {}, "your weights, .safetensors (or drawn ones)", weights));
    form.append(run, stop);
    stop.hidden = true;
    stop.addEventListener("click", () => abandon("stopped"));
    let drawn = null;
    const look = async (size) => {
      const image = own.input.files[0] ? await readPicture(own.input.files[0], size) : sample(size, 3);
      paint(drawn.image, { shape: [3, size, size], data: image }, 0, 255);
      return image;
    };
    const draw = (layers, size) => {
      drawn = drawing(layers);
      drawn.size = size;
      place.replaceChildren(drawn.box);
    };
    own.input.addEventListener("change", () => {
      if (drawn && drawn.layers) { // the recorded numbers were those of the drawn picture
        draw(drawn.layers, drawn.size);
        say.textContent = "";
      }
      if (drawn) look(drawn.size).catch((error) => fail(say, node, error.message));
    });
    const compute = async () => {
      run.disabled = true;
      stop.hidden = false;
      delete node.dataset.failed;
      top.replaceChildren();
      say.className = "say";
      say.textContent = "getting ready";
      const status = (text) => { say.textContent = text || "building the network"; };
      try {
        let file = weights.files[0] || null;
        if (shipped) {
          const answer = await fetch(new URL("assets/live/" + shipped, root)).catch(() => null);
          if (!answer || !answer.ok) throw new Error("the trained network cannot be loaded: is there a network?");
          file = await answer.blob();
        }
        const { size, layers } = await ask("wanted", {}, { file, status });
        draw(layers, size);
        const image = await look(size);
        say.textContent = drawn.following("");
        const told = (layer) => {
          drawn.told(layer);
          say.textContent = drawn.following(layer.layer);
        };
        const result = await ask("network", { image, size }, { file, told, status });
        bars(top, Array.from(result.top, (one) => Array.from(one)));
        node.result = result;
        node.asked = { image, size };
        const forward = result.seconds - result.weights_seconds;
        const what = file ? "" : " The weights were drawn and have learned nothing, so all classes are nearly alike.";
        succeed(say, node, `${counted(result.parameters)} parameters: ${seconds(forward)} for the network, ` +
          `${seconds(result.weights_seconds)} to ${file ? "read" : "draw"} its weights, ` +
          `${(result.memory / 2 ** 20).toFixed(0)} MB of memory.${what}`);
      } catch (error) {
        fail(say, node, error.message);
      } finally {
        run.disabled = false;
        stop.hidden = true;
        place.querySelectorAll(".now").forEach((one) => one.classList.remove("now"));
      }
    };
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      compute();
    });
    node.append(form, say, top, place);
    const record = async (layers, found) => {
      await drawn.recorded(found);
      drawn.layers = layers;
      say.textContent = "Recorded: the drawn picture in a network of the same drawn weights. The button computes it here.";
    };
    return { draw, look, record };
  }

  add({
    // The paper's network, with a recorded run, is there before anybody presses the button.
    async network(node) {
      const part = whole(node, "Run all 60,965,224 parameters", null);
      const { size, layers } = await json("columns.json");
      part.draw(layers, size);
      await part.look(size);
      const answer = await fetch(new URL("assets/live/recorded.json", root)).catch(() => null);
      if (answer && answer.ok) await part.record(layers, (await answer.json()).layers);
    },
    classify: (node) => { whole(node, "Classify", "classify.safetensors"); },
  });
})();
