// node pages.cjs PLAYWRIGHT AXE.js ADDRESS OUT PAGE…: opens pages at two widths and two schemes, operates the live parts.
const { writeFileSync, mkdirSync } = require("node:fs");
const [playwright, axe, address, out, ...pages] = process.argv.slice(2);
const { chromium } = require(playwright);
(async () => {
  mkdirSync(out, { recursive: true });
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"] });
  const report = { errors: [], axe: [], wide: [], weights: {}, live: {} };
  for (const scheme of ["light", "dark"]) for (const width of [390, 1280]) {
    const context = await browser.newContext({ viewport: { width, height: 844 }, colorScheme: scheme, reducedMotion: "reduce" });
    for (const page of pages) {
      const tab = await context.newPage();
      const where = `${page} ${scheme} ${width}`;
      let weight = 0;
      tab.on("console", (m) => { if (m.type() === "error") report.errors.push(`${where}: ${m.text()}`); });
      tab.on("pageerror", (e) => report.errors.push(`${where}: ${e.message}`));
      tab.on("response", async (r) => { weight += (await r.body().catch(() => "")).length; });
      await tab.goto(address + page, { waitUntil: "networkidle" });
      report.weights[page] = weight;
      if (await tab.evaluate(() => document.documentElement.scrollWidth > innerWidth + 1)) report.wide.push(where);
      await tab.addScriptTag({ path: axe });
      const found = await tab.evaluate(() => axe.run({ resultTypes: ["violations"] }));
      for (const v of found.violations) if (["serious", "critical"].includes(v.impact)) {
        report.axe.push(`${where}: ${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)).join(" | ")}`);
      }
      if (scheme === "light" && width === 1280) {
        for (const part of await tab.$$(".live[data-live]")) {
          const name = await part.getAttribute("data-live");
          const button = await part.$("button");
          if (button) {
            await button.click();
            const node = await tab.waitForFunction((n) => n.dataset.failed || n.dataset.runs, part, { timeout: 180000 });
            await node.dispose();
            const range = await part.$('input[type="range"]');
            if (range) {
              const runs = await part.getAttribute("data-runs");
              await range.press("ArrowRight");
              await tab.waitForFunction(([n, r]) => n.dataset.failed || n.dataset.runs !== r, [part, runs], { timeout: 60000 });
            }
          }
          report.live[name] = await part.evaluate((n) => {
            const plain = (x) => ArrayBuffer.isView(x) ? Array.from(x) : x && typeof x === "object" && !Array.isArray(x)
              ? Object.fromEntries(Object.entries(x).map(([k, v]) => [k, plain(v)])) : x;
            return { failed: n.dataset.failed || null, said: n.querySelector(".say")?.textContent, asked: plain(n.asked), result: plain(n.result) };
          });
        }
      }
      await tab.screenshot({ path: `${out}/${page.replace(/\W/g, "_")}-${scheme}-${width}.png`, fullPage: true });
      await tab.close();
    }
    await context.close();
  }
  await browser.close();
  writeFileSync(out + "/report.json", JSON.stringify(report));
})().catch((error) => { console.error(error); process.exit(1); });
