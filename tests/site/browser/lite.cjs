// node lite.cjs PLAYWRIGHT CHROMIUM ADDRESS OUT.png: opens a notebook of a JupyterLite, runs its cells one by one, says what came of it.
const [playwright, executablePath, address, out] = process.argv.slice(2);
const { chromium } = require(playwright);
(async () => {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-gpu", "--disable-quic",
    "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"] });
  const tab = await (await browser.newContext({ viewport: { width: 1280, height: 1000 } })).newPage();
  const found = { outside: [], failed: [], prompts: {}, said: {}, pictures: 0 };
  const home = new URL(address).origin;
  tab.on("request", (r) => { if (/^https?:/.test(r.url()) && !r.url().startsWith(home)) found.outside.push(r.url()); });
  await tab.goto(address, { waitUntil: "load" });
  await tab.waitForSelector(".jp-Notebook .jp-CodeCell", { timeout: 120000 });
  await tab.waitForSelector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', { timeout: 120000 });
  await tab.locator(".jp-Notebook .jp-Cell").first().click();
  await tab.keyboard.press("Escape");
  let last = -1;
  for (let press = 0; press < 200; press++) {
    const place = await tab.evaluate(() => Number(document.querySelector(".jp-Cell.jp-mod-selected")?.dataset.windowedListIndex ?? -2));
    if (place === last || place === -2) break;
    last = place;
    await tab.keyboard.press("Control+Enter");
    await tab.waitForTimeout(100);
    await tab.waitForFunction(() => !document.querySelector(".jp-Cell.jp-mod-selected .jp-InputPrompt")?.textContent.includes("*"),
      null, { timeout: 300000 });
    const cell = await tab.evaluate(() => {
      const cell = document.querySelector(".jp-Cell.jp-mod-selected");
      const areas = cell.querySelector(".jp-OutputArea");
      return { prompt: cell.querySelector(".jp-InputPrompt")?.textContent.trim() ?? "", said: areas?.innerText.slice(0, 400) ?? "",
        pictures: cell.querySelectorAll(".jp-OutputArea img").length,
        error: cell.querySelector('[data-mime-type="application/vnd.jupyter.error"]')?.innerText.slice(-400) ?? "" };
    });
    if (cell.prompt) { found.prompts[place] = cell.prompt; found.said[place] = cell.said; }
    if (cell.error) found.failed.push(`cell ${place}: ${cell.error}`);
    found.pictures += cell.pictures;
    if (cell.pictures === 1 && found.pictures === 1) await tab.screenshot({ path: out });
    await tab.keyboard.press("ArrowDown");
    await tab.waitForTimeout(50);
  }
  await browser.close();
  console.log(JSON.stringify(found));
})().catch((error) => { console.error(error); process.exit(1); });
