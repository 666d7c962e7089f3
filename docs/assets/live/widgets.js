// Live parts without Python: the calculator of shapes and parameters, and the map of the columns.
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

  add({ calculator, columns });
})();
