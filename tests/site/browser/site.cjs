// node site.cjs ORDERS.json: what a reader's browser makes of the built site. Prints a report as JSON; a test compares it.
// Orders: {playwright, chromium, axe, address, task, ...}; each task below says what else it takes and what it reports.
const { readFileSync } = require("node:fs");
const orders = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { chromium } = require(orders.playwright);
const QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
const WIDTHS = { phone: 390, desktop: 1280 };
const PART = ".live[data-live]";

async function tabOf(browser, { scheme = "light", width = WIDTHS.desktop, scripts = true } = {}) {
  const context = await browser.newContext({
    viewport: { width, height: 844 }, colorScheme: scheme, reducedMotion: "reduce", javaScriptEnabled: scripts,
  });
  return context.newPage();
}

// Everything that a page complains about, by the place that `at` names at that moment.
function listen(tab, at, errors) {
  tab.on("console", (message) => { if (message.type() === "error") errors.push(`${at()}: ${message.text()}`); });
  tab.on("pageerror", (error) => errors.push(`${at()}: ${error.message}`));
  tab.on("requestfailed", (request) => {
    const why = request.failure().errorText;
    // in a dark page site.js puts a picture's dark twin into its place, perhaps while it is on its way
    if (why === "net::ERR_ABORTED" && at().includes("(dark,") && /(?<!\.dark)\.png$/.test(request.url())) return;
    errors.push(`${at()}: ${request.url()}: ${why}`);
  });
  tab.on("response", (answer) => { if (answer.status() >= 400) errors.push(`${at()}: ${answer.url()}: ${answer.status()}`); });
}

const plain = (node) => node.evaluate((part) => {
  const bare = (x) => ArrayBuffer.isView(x) || Array.isArray(x) ? Array.from(x, bare)
    : x && typeof x === "object" ? Object.fromEntries(Object.entries(x).map(([key, value]) => [key, bare(value)])) : x;
  return { failed: part.dataset.failed || null, said: part.querySelector(".say")?.textContent || "", asked: bare(part.asked), result: bare(part.result) };
});

// Waits until a part has computed once more, or has failed.
async function settled(tab, part, runs, seconds = 90) {
  await tab.waitForFunction(([node, before]) => node.dataset.failed || (node.dataset.runs || "0") !== before,
    [part, runs], { timeout: 1000 * seconds });
}
const runsOf = async (part) => (await part.getAttribute("data-runs")) || "0";
async function press(tab, part) {
  const runs = await runsOf(part), button = await part.$("button[type=submit]");
  await button.focus();
  await tab.keyboard.press("Enter");
  await settled(tab, part, runs);
}

const tasks = {
  // {pages}: every page in both schemes at both widths; axe in two of the four.
  async pages(browser) {
    const report = { errors: [], wide: [], axe: [], wordless: [], weights: {} };
    const checks = [];
    for (const [scheme, kind, deep] of [["light", "desktop", true], ["dark", "phone", true], ["light", "phone", false], ["dark", "desktop", false]]) {
      for (const page of orders.pages) checks.push({ scheme, kind, deep, page });
    }
    async function worker(mine) {
      const tabs = {};
      let where = "";
      for (const { scheme, kind, deep, page } of mine) {
        const key = scheme + kind;
        if (!tabs[key]) {
          tabs[key] = await tabOf(browser, { scheme, width: WIDTHS[kind] });
          listen(tabs[key], () => where, report.errors);
          tabs[key].weight = 0;
          tabs[key].on("response", async (answer) => { tabs[key].weight += (await answer.body().catch(() => "")).length; });
        }
        const tab = tabs[key];
        where = `${page} (${scheme}, ${kind})`;
        tab.weight = 0;
        await tab.goto(orders.address + page, { waitUntil: "load" });
        await tab.evaluate(() => document.fonts.ready.then(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))));
        const over = await tab.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        if (over > 1) report.wide.push(`${where}: wider than the screen by ${over} pixels`);
        if (!deep) continue;
        report.weights[page] = Math.max(report.weights[page] || 0, tab.weight);
        report.wordless.push(...(await tab.evaluate(() => [...document.images].filter((image) => !image.alt.trim()).map((image) => image.src)))
          .map((source) => `${where}: ${source}`));
        await tab.addScriptTag({ path: orders.axe });
        const { violations } = await tab.evaluate(() => axe.run({ resultTypes: ["violations"], runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] }));
        for (const found of violations.filter((one) => ["serious", "critical"].includes(one.impact))) {
          report.axe.push(`${where}: ${found.id}: ${found.nodes.slice(0, 2).map((node) => node.html.slice(0, 150)).join(" | ")}`);
        }
      }
    }
    const half = checks.filter((_, i) => i % 2 === 0), rest = checks.filter((_, i) => i % 2 === 1);
    await Promise.all([worker(half), worker(rest)]);
    return report;
  },

  // {page, words}: the search; its index is fetched when somebody turns to it.
  async search(browser) {
    const found = {};
    for (const width of Object.values(WIDTHS)) {
      const tab = await tabOf(browser, { width }), fetched = [];
      tab.on("request", (request) => { if (request.url().includes("search_index")) fetched.push(request.url()); });
      await tab.goto(orders.address + orders.page, { waitUntil: "networkidle" });
      const before = fetched.length;
      if (width === WIDTHS.phone) await tab.click(".md-header label[for=__search]");
      await tab.click(".md-search__input");
      await tab.keyboard.type(orders.words);
      await tab.waitForSelector(".md-search-result__item a");
      found[width] = { before, after: fetched.length, first: await tab.$eval(".md-search-result__item a", (link) => link.href) };
    }
    return found;
  },

  // {page, picture}: every part of a page, operated by keyboard, pointer and file; what was asked and what came.
  async live(browser) {
    const tab = await tabOf(browser), errors = [], parts = {}, first = {};
    listen(tab, () => "live", errors);
    await tab.goto(orders.address + orders.page, { waitUntil: "networkidle" });
    for (const part of await tab.$$(PART)) {
      const name = await part.getAttribute("data-live"), steps = [];
      const note = async (step) => steps.push({ step, ...(await plain(part)) });
      if (await part.$("button[type=submit]")) {
        const drawings = () => part.$$eval("canvas", (all) => all.map((one) => one.toDataURL()));
        const before = await drawings(), empty = (await part.$$("canvas.empty")).length;
        await press(tab, part);
        await note("run");
        first[name] = { empty, same: JSON.stringify(before) === JSON.stringify(await drawings()) };
        const slider = await part.$('input[type="range"]');
        if (slider) {
          const runs = await runsOf(part);
          await slider.focus();
          await tab.keyboard.press("ArrowRight");
          await settled(tab, part, runs);
          await note("slider");
        }
        const board = await part.$("canvas.board");
        if (board) {
          let runs = await runsOf(part);
          await board.focus();
          for (const key of ["ArrowUp", "ArrowLeft", "Space"]) await tab.keyboard.press(key);
          await settled(tab, part, runs);
          await note("keyboard");
          runs = await runsOf(part);
          await board.scrollIntoViewIfNeeded();
          const box = await board.boundingBox();
          await tab.mouse.move(box.x + 9, box.y + 9);
          await tab.mouse.down();
          await tab.mouse.up();
          await settled(tab, part, runs);
          await note("pointer");
        }
        const picture = await part.$('input[name="picture"]');
        if (picture) {
          const runs = await runsOf(part);
          await picture.setInputFiles(orders.picture);
          if (name === "classify") await press(tab, part);
          else await settled(tab, part, runs);
          await note("picture");
        }
      } else {
        const field = await part.$("input, select");
        await field.focus();
        await tab.keyboard.press("ArrowDown");
        await note("changed");
      }
      parts[name] = steps;
    }
    return { errors, parts, first };
  },

  // {page, weights, picture}: the whole network with drawn weights, stopped, then a reader's file.
  async network(browser) {
    const tab = await tabOf(browser), errors = [], steps = {};
    listen(tab, () => "network", errors);
    await tab.goto(orders.address + orders.page, { waitUntil: "networkidle" });
    steps.before = await tab.evaluate(() => performance.getEntriesByType("resource").filter((one) => /pyodide|\.whl/.test(one.name)).length);
    const part = await tab.$('.live[data-live="network"]');
    const begin = Date.now();
    await press(tab, part);
    steps.drawn = { ...(await plain(part)), seconds: (Date.now() - begin) / 1000, lit: (await part.$$(".row.done")).length };
    const button = await part.$("button[type=submit]");
    await button.click();
    await tab.waitForFunction((node) => node.querySelectorAll(".row.done").length > 2, part, { timeout: 60000 });
    await part.$("button.small").then((stop) => stop.click());
    await tab.waitForFunction((node) => node.dataset.failed, part);
    steps.stopped = await plain(part);
    await (await part.$('input[name="weights"]')).setInputFiles(orders.weights);
    await press(tab, part);
    steps.read = await plain(part);
    return { errors, steps, version: browser.version() };
  },

  // {page, text}: what is said when something is missing; a page each.
  async failures(browser) {
    const said = {};
    async function failing(name, prepare, operate) {
      const tab = await tabOf(browser);
      await prepare(tab);
      await tab.goto(orders.address + orders.page, { waitUntil: "networkidle" });
      const part = await tab.$(`.live[data-live="${name.part || "pooling"}"]`);
      if (operate) await operate(part);
      await press(tab, part);
      said[name.what] = (await plain(part)).failed;
      await tab.context().close();
    }
    await failing({ what: "WebAssembly" }, (tab) => tab.route("**/worker.js", async (route) => {
      const answer = await route.fetch();
      await route.fulfill({ response: answer, body: "Object.defineProperty(self, 'WebAssembly', { value: undefined });\n" + (await answer.text()) });
    }));
    await failing({ what: "Pyodide" }, (tab) => tab.route("**/pyodide.js", (route) => route.abort()));
    await failing({ what: "NumPy" }, (tab) => tab.route("**/numpy-*.whl", (route) => route.fulfill({ status: 404, body: "" })));
    await failing({ what: "wheel" }, (tab) => tab.route("**/minialex-*.whl", (route) => route.fulfill({ status: 404, body: "" })));
    await failing({ what: "settings" }, (tab) => tab.route("**/settings.json", (route) => route.fulfill({ status: 404, body: "" })));
    await failing({ what: "picture" }, async () => {}, async (part) => (await part.$('input[name="picture"]')).setInputFiles(orders.text));
    await failing({ what: "weights", part: "classify" }, (tab) => tab.route("**/classify.safetensors", (route) => route.fulfill({ status: 404, body: "" })));
    return { said };
  },

  // {pages}: pages without scripts; for each part what a reader sees in its place.
  async plain(browser) {
    const tab = await tabOf(browser, { scripts: false }), seen = {};
    for (const page of orders.pages) {
      await tab.goto(orders.address + page, { waitUntil: "load" });
      seen[page] = await Promise.all((await tab.$$(PART)).map(async (part) => ({
        name: await part.getAttribute("data-live"),
        words: (await part.innerText()).trim(),
        drawings: await part.$$eval("svg", (all) => all.length),
        height: (await part.boundingBox()).height,
      })));
    }
    return { seen };
  },
};

(async () => {
  const browser = await chromium.launch({ executablePath: orders.chromium, args: QUIET });
  try {
    process.stdout.write(JSON.stringify(await tasks[orders.task](browser)));
  } finally {
    await browser.close();
  }
})().catch((error) => {
  console.error(error.message);
  process.exit(1);
});
