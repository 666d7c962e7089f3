// Live parts that recompute one operation with the library's NumPy reference.
(() => {
  "use strict";
  const { make, words, fail, succeed, json, ask, paint, figure, sample, readPicture, picker, add } = window.minialexLive;
  const SIZE = 48;

  // ---- controls; each returns a function that gives its value ----
  function slider(form, label, name, low, high, step, value, words = String) {
    const shown = make("output", {}, words(value));
    const input = make("input", { type: "range", name, min: low, max: high, step, value });
    input.addEventListener("input", () => { shown.textContent = words(Number(input.value)); });
    form.append(make("label", {}, make("span", {}, label + " ", shown), input));
    return () => Number(input.value);
  }
  const KERNELS = {
    "vertical edges": [-1, 0, 1, -2, 0, 2, -1, 0, 1],
    "horizontal edges": [-1, -2, -1, 0, 0, 0, 1, 2, 1],
    spots: [0, -1, 0, -1, 4, -1, 0, -1, 0],
    sharpen: [0, -1, 0, -1, 5, -1, 0, -1, 0],
    blur: [1, 2, 1, 2, 4, 2, 1, 2, 1].map((v) => v / 16),
    identity: [0, 0, 0, 0, 1, 0, 0, 0, 0],
  };
  // A named kernel, and nine fields in which to make one's own.
  function kernels(form) {
    const names = Object.keys(KERNELS);
    const select = make("select", { name: "kernel" }, ...[...names, "my own"].map((name) => make("option", {}, name)));
    const fields = KERNELS[names[0]].map((value, i) => make("input", {
      type: "number", step: "any", name: "weight" + i, value, "aria-label": `weight in row ${Math.floor(i / 3) + 1}, column ${i % 3 + 1}`,
    }));
    select.addEventListener("input", () => {
      const chosen = KERNELS[select.value];
      if (chosen) fields.forEach((field, i) => { field.value = chosen[i]; });
    });
    fields.forEach((field) => field.addEventListener("input", () => { select.value = "my own"; }));
    const grid = make("fieldset", { class: "kernel" }, make("legend", {}, "its nine weights"), ...fields);
    form.append(make("label", {}, "kernel", select), grid);
    return () => fields.map((field) => {
      const value = Number(field.value);
      if (field.value === "" || !Number.isFinite(value)) throw new Error("each of the nine weights must be a number");
      return value;
    });
  }

  // ---- a picture of the reader's: drawn on, or read from a file ----
  function board(box, form, changed) {
    let data = sample(SIZE, 1);
    const canvas = make("canvas", {
      tabindex: "0", role: "application", class: "board",
      "aria-label": "Picture to draw on. Arrow keys move the pencil, space draws.",
    });
    const again = make("button", { type: "button", class: "small" }, "reset");
    const { input, field } = picker("your own picture");
    box.append(make("figure", {}, canvas, make("figcaption", {}, "draw on it, or use arrow keys and space ", again)));
    form.append(field);
    let at = [SIZE >> 1, SIZE >> 1], last = null;
    const show = () => {
      paint(canvas, { shape: [SIZE, SIZE], data }, 0, 255);
      if (document.activeElement !== canvas) return;
      const pen = canvas.getContext("2d");
      pen.fillStyle = "#f58220";
      pen.fillRect(at[1], at[0], 2, 2);
    };
    const dot = (i, j) => {
      for (let a = 0; a < 2; a++) {
        for (let b = 0; b < 2; b++) if (i + a < SIZE && j + b < SIZE && i >= 0 && j >= 0) data[(i + a) * SIZE + j + b] = 255;
      }
      show();
      changed();
    };
    const point = (event) => {
      if (event.buttons !== 1) return;
      const r = canvas.getBoundingClientRect();
      dot(Math.floor((event.clientY - r.top) / r.height * SIZE), Math.floor((event.clientX - r.left) / r.width * SIZE));
    };
    canvas.addEventListener("pointerdown", point);
    canvas.addEventListener("pointermove", point);
    canvas.addEventListener("focus", show);
    canvas.addEventListener("blur", show);
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (step) at = at.map((v, k) => Math.min(SIZE - 1, Math.max(0, v + step[k])));
      else if (event.key === " ") dot(...at);
      else return;
      event.preventDefault();
      show();
    });
    again.addEventListener("click", () => {
      data = sample(SIZE, 1);
      input.value = "";
      last = null;
      show();
      changed();
    });
    // Takes the reader's file where there is a new one; what is wrong with it is said when it is computed with.
    async function refresh() {
      const file = input.files[0];
      if (!file || file === last) return;
      data = await readPicture(file, SIZE, 1);
      last = file;
      show();
    }
    input.addEventListener("change", () => refresh().catch(() => {}));
    show();
    return { read: () => data.slice(), refresh };
  }

  // A part: `build` adds controls and says what to ask and how to show the answer. After the first press of Run
  // every change computes at once.
  function computed(node, build) {
    const form = make("form"), box = make("div", { class: "pictures" }), say = words();
    const run = make("button", { type: "submit" }, "Run");
    let busy = false, again = false, ready = false;
    const compute = async () => {
      if (busy) {
        again = true;
        return;
      }
      busy = true;
      run.disabled = !ready;
      delete node.dataset.failed;
      try {
        do {
          again = false;
          if (part.before) await part.before();
          const { name, args } = part.ask();
          const result = await ask(name, args, { status: (text) => { say.textContent = text; } });
          ready = true;
          node.result = result;
          node.asked = args;
          succeed(say, node, part.show(result, args));
        } while (again);
      } catch (error) {
        fail(say, node, error.message);
      } finally {
        busy = false;
        run.disabled = false;
      }
    };
    const changed = () => { if (ready) compute(); };
    const part = build(form, box, changed);
    form.append(run);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      compute();
    });
    form.addEventListener("input", changed);
    node.append(form, box, say);
    if (box.querySelector("canvas.empty")) begin().catch(() => {}); // a page from a disk has none: the places stay empty
    // What the first settings give is on the page before anybody presses Run, unless the reader was faster.
    async function begin() {
      const found = (await json("first.json"))[node.dataset.live], { args } = part.ask();
      const same = Object.entries(found.args).every(([key, value]) => JSON.stringify(args[key]) === JSON.stringify(value));
      if (same && !ready && !busy && args.image.every((value, i) => value === untouched[i])) part.show(found.result, args);
    }
  }
  const untouched = sample(SIZE, 1);
  const wait = (box, caption, alt) => {
    const canvas = figure(box, caption, alt);
    canvas.width = canvas.height = SIZE;
    canvas.classList.add("empty");
    return canvas;
  };
  const fill = (canvas, ...what) => {
    canvas.classList.remove("empty");
    paint(canvas, ...what);
  };

  const convolution = (node) => computed(node, (form, box, changed) => {
    const picture = board(box, form, changed), kernel = kernels(form);
    const stride = slider(form, "stride", "stride", 1, 4, 1, 1), padding = slider(form, "padding", "padding", 0, 3, 1, 1);
    const out = wait(box, "what comes out", "Result of the convolution");
    return {
      before: picture.refresh,
      ask: () => ({ name: "convolution", args: {
        image: picture.read(), height: SIZE, width: SIZE, kernel: kernel(), stride: stride(), padding: padding(),
      } }),
      show: (y) => {
        fill(out, y);
        const low = Math.min(...y.data).toFixed(1), high = Math.max(...y.data).toFixed(1);
        return `${SIZE} × ${SIZE} → ${y.shape[2]} × ${y.shape[3]}; black is ${low}, white ${high}`;
      },
    };
  });

  const relu = (node) => computed(node, (form, box, changed) => {
    const picture = board(box, form, changed), kernel = kernels(form);
    const bias = slider(form, "bias", "bias", -300, 300, 10, 0);
    const before = wait(box, "convolution and bias", "Result of the convolution with its bias");
    const after = wait(box, "after ReLU: what was negative is 0, black", "After ReLU");
    return {
      before: picture.refresh,
      ask: () => ({ name: "relu", args: { image: picture.read(), height: SIZE, width: SIZE, kernel: kernel(), bias: bias() } }),
      show: (y) => {
        fill(before, y.before);
        fill(after, y);
        return `${(100 * y.silent).toFixed(1)} % of the neurons are silent`;
      },
    };
  });

  const normalisation = (node) => computed(node, (form, box) => {
    const loud = slider(form, "channel 6", "loud", 0, 200, 5, 100);
    const others = slider(form, "all others", "others", 0, 200, 5, 30);
    const size = slider(form, "n", "size", 1, 11, 2, 5), k = slider(form, "k", "k", 1, 4, 0.5, 2);
    const power = slider(form, "α", "alpha", -6, -1, 0.5, -4, (v) => (10 ** v).toPrecision(1));
    const beta = slider(form, "β", "beta", 0, 1, 0.05, 0.75);
    const out = make("div", { class: "bars" });
    box.append(out);
    const values = () => Array.from({ length: 12 }, (_, c) => (c === 6 ? loud() : others()));
    const draw = (x, y) => {
      const top = Math.max(...y, 1e-9);
      out.replaceChildren(...x.map((v, c) => {
        const bar = make("i");
        bar.style.width = 100 * y[c] / top + "%";
        return make("div", { class: "bar" }, make("span", {}, `channel ${c}: ${v} →`), bar, make("span", {}, y[c].toFixed(2)));
      }));
    };
    draw(values(), values());
    return {
      ask: () => ({ name: "normalisation", args: { values: values(), size: size(), k: k(), alpha: 10 ** power(), beta: beta() } }),
      show: (y, { values: x }) => {
        draw(x, Array.from(y.data));
        return `channel 6: ${x[6]} → ${y.data[6].toFixed(3)}; its neighbour 5: ${x[5]} → ${y.data[5].toFixed(3)}; ` +
          `channel 0, far away: ${x[0]} → ${y.data[0].toFixed(3)}`;
      },
    };
  });

  const pooling = (node) => computed(node, (form, box, changed) => {
    const picture = board(box, form, changed);
    const size = slider(form, "size z", "size", 1, 6, 1, 3), stride = slider(form, "stride s", "stride", 1, 6, 1, 2);
    const out = wait(box, "the largest of each window", "Result of pooling");
    return {
      before: picture.refresh,
      ask: () => ({ name: "pooling", args: { image: picture.read(), height: SIZE, width: SIZE, size: size(), stride: stride() } }),
      show: (y) => {
        fill(out, y, 0, 255);
        const lie = size() > stride() ? "overlap, as in the paper" : size() === stride() ? "lie side by side" : "leave gaps";
        return `${SIZE} × ${SIZE} → ${y.shape[2]} × ${y.shape[3]}; windows ${lie}`;
      },
    };
  });

  const colour = (node) => computed(node, (form, box) => {
    const side = 96, own = picker("your own picture");
    let data = sample(side, 3), last = null;
    form.append(own.field);
    const draws = [0.5, 0, 0].map((value, i) => slider(form, `draw ${i + 1}`, "alpha" + (i + 1), -1, 1, 0.05, value));
    const given = figure(box, "the picture", "The picture as it is"), out = figure(box, "its colours shifted", "The picture with its colours shifted");
    paint(given, { shape: [3, side, side], data }, 0, 255);
    paint(out, { shape: [3, side, side], data }, 0, 255);
    async function before() {
      const file = own.input.files[0];
      if (!file || file === last) return;
      data = await readPicture(file, side);
      last = file;
      paint(given, { shape: [3, side, side], data }, 0, 255);
    }
    own.input.addEventListener("change", () => before().catch(() => {}));
    return {
      before,
      ask: () => ({ name: "colour", args: { image: data, height: side, width: side, draws: draws.map((draw) => draw()) } }),
      show: (y) => {
        paint(out, y, 0, 255);
        return "added to red, green and blue everywhere: " + Array.from(y.shift, (v) => v.toFixed(1)).join(", ");
      },
    };
  });

  add({ convolution, relu, normalisation, pooling, colour });
})();
