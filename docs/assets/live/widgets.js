// Live parts without Python: the calculator of shapes and parameters, the map of the columns, the numbers on wires.
(() => {
  "use strict";
  const { make, words, json, add } = window.minialexLive;
  const counted = (number) => number.toLocaleString("en");

  async function calculator(node) {
    const { defaults } = await json("calculator.json");
    const form = make("form"), say = words();
    const fields = {
      channels: ["channels in", 1], size: ["rows and columns", 1], kernels: ["kernels", 1], kernel: ["kernel size", 1],
      stride: ["stride", 1], before: ["zeros above", 0], after: ["zeros below", 0],
    };
    const inputs = {};
    for (const [name, [label, low]] of Object.entries(fields)) {
      inputs[name] = make("input", { type: "number", name, min: low, max: 4096, value: defaults[name] });
      form.append(make("label", {}, label, inputs[name]));
    }
    const show = () => {
      const v = {};
      let wrong = "";
      for (const [name, [label, low]] of Object.entries(fields)) {
        v[name] = Number(inputs[name].value);
        if (!Number.isInteger(v[name]) || v[name] < low) wrong = wrong || `${label}: a whole number of at least ${low}, please`;
      }
      const places = Math.floor((v.size + v.before + v.after - v.kernel) / v.stride) + 1;
      if (!wrong && places < 1) wrong = "the kernel is larger than the picture with its zeros";
      say.className = wrong ? "say bad" : "say";
      if (wrong) {
        say.textContent = wrong;
        return;
      }
      const weights = v.channels * v.kernel ** 2;
      const parameters = v.kernels * (weights + 1), products = v.kernels * places ** 2 * weights;
      node.result = { output: [v.kernels, places, places], parameters, multiply_adds: products };
      say.textContent = `output ${v.kernels} × ${places} × ${places}; ${counted(parameters)} parameters; ` +
        `${counted(products)} multiply-adds a picture`;
    };
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    node.append(form, say);
    show();
  }

  async function columns(node) {
    const { layers } = await json("columns.json");
    const form = make("form"), say = words();
    const select = make("select", { name: "layer" }, ...layers.map((one) => make("option", {}, one.layer)));
    form.append(make("label", {}, "layer", select));
    const show = () => {
      const one = layers[select.selectedIndex];
      node.result = one;
      const where = one.columns === 1 ? "one column" : `${one.columns} columns`;
      const crosses = one.received ? `${counted(one.received)} values cross between the columns for every picture` : "nothing crosses";
      say.textContent = `${one.layer} (${one.kind}): ${where} of ${one.output.join(" × ")}; reads ${one.reads}; ` +
        `${counted(one.parameters)} parameters; ${crosses}`;
    };
    form.addEventListener("input", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    node.append(form, say);
    show();
  }

  // One neuron, its loss, and the loss's slope along every number of it (minialex/site/diagrams/learning.py draws it).
  function neuron({ w1, x1, w2, x2, b, t }) {
    const p1 = w1 * x1, p2 = w2 * x2, z = p1 + p2 + b, y = Math.max(0, z), dy = y - t, dz = z > 0 ? dy : 0;
    return {
      forward: { w1, x1, w2, x2, b, t, p1, p2, z, y, loss: dy ** 2 / 2 },
      back: { w1: dz * x1, x1: dz * w1, w2: dz * x2, x2: dz * w2, b: dz, p1: dz, p2: dz, z: dz, y: dy, loss: 1 },
    };
  }

  function wires(node) {
    const RATE = 0.1, form = make("form"), say = words(), drawn = node.querySelector("svg");
    const text = (value) => String(Math.round(100 * value) / 100 || 0).replace("-", "−");
    const number = (place) => Number(place.textContent.replace("−", "-"));
    const start = { t: 1 };
    for (const name of ["w1", "x1", "w2", "x2", "b"]) start[name] = number(drawn.querySelector(`[data-value=${name}]`));
    let now = { ...start };
    const slider = make("input", { type: "range", name: "w1", min: -2, max: 2, step: 0.1, value: start.w1 });
    const shown = make("output"), step = make("button", { type: "button" }, "one step downhill");
    const again = make("button", { type: "button", class: "small" }, "reset");
    form.append(make("label", {}, make("span", {}, "weight w₁ ", shown), slider), step, again);
    const show = () => {
      const found = neuron(now), { forward, back } = found;
      node.result = found;
      for (const [name, value] of Object.entries(back)) {
        drawn.querySelector(`[data-value=${name}]`).textContent = text(forward[name]);
        drawn.querySelector(`[data-slope=${name}]`).textContent = "∂ " + text(value);
      }
      slider.value = now.w1;
      shown.textContent = text(now.w1);
      const rest = forward.z > 0 ? `the slope along w₁ is ${text(back.w1)}: a step moves it ${back.w1 > 0 ? "down" : "up"}`
        : "the unit is silent: no weight has a slope, and no step moves any";
      say.textContent = `z = ${text(forward.z)}, y = ${text(forward.y)}, loss ${text(forward.loss)}; ` +
        (forward.z > 0 && Math.abs(back.w1) < 0.005 ? "the slope is nothing: it has learned" : rest);
      drawn.setAttribute("aria-label", `One neuron as a plan of wires, with its numbers. ${say.textContent}.`);
    };
    slider.addEventListener("input", () => {
      now.w1 = Number(slider.value);
      show();
    });
    step.addEventListener("click", () => {
      const { back } = neuron(now);
      for (const name of ["w1", "w2", "b"]) now[name] -= RATE * back[name];
      show();
    });
    again.addEventListener("click", () => {
      now = { ...start };
      show();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    node.append(form, say);
    show();
  }

  add({ calculator, columns, wires });
})();
