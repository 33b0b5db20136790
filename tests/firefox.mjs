// Firefox, driven without geckodriver: `node firefox.mjs FOLDER FIREFOX` reads visits, a JSON list of { address, size,
// steps }, and writes for each what its steps gave, what went wrong and what was asked for. A step is ["evaluate",
// script], ["wait", script, milliseconds], ["click", selector] or ["press", selector, key]. FOLDER has node_modules.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [, , folder, executablePath] = process.argv;
const driver = createRequire(`${folder}/`)("puppeteer-core");
const ACTS = {
  evaluate: (page, script) => page.evaluate(script),
  wait: (page, script, timeout) => page.waitForFunction(script, { timeout }).then(() => null),
  click: (page, selector) => page.click(selector).then(() => null),
  press: async (page, selector, key) => {
    await page.focus(selector);
    await page.keyboard.press(key);
    return null;
  },
};

async function visited(browser, { address, size, steps }) {
  const page = await browser.newPage();
  const found = { address, gave: [], problems: [], asked: [] };
  page.on("pageerror", (error) => found.problems.push(String(error)));
  page.on("console", (said) => said.type() === "error" && found.problems.push(said.text()));
  page.on("request", (request) => found.asked.push(request.url()));
  try {
    await page.setViewport({ width: size[0], height: size[1] });
    await page.goto(address, { waitUntil: "load" });
    for (const [act, ...given] of steps) found.gave.push(await ACTS[act](page, ...given));
  } catch (error) {
    found.problems.push(String(error));
  }
  await page.close();
  return found;
}

const visits = JSON.parse(readFileSync(0, "utf8"));
const browser = await driver.launch({ browser: "firefox", executablePath, headless: true });
try {
  const found = [];
  for (const visit of visits) found.push(await visited(browser, visit));
  process.stdout.write(JSON.stringify(found));
} finally {
  await browser.close();
}
