// Drive the demo in Chromium by the steps of a job on stdin; answer with what the page said after each.
//
// A job: {url, chromium, modules, steps: [[name, ...arguments]], faults: [[address, found, replacement]], view}.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { basename } from "node:path";

const SECONDS = 1000;
const job = JSON.parse(readFileSync(0, "utf8"));
const { chromium } = createRequire(`${job.modules}/`)("playwright-core");

const FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"];

const steps = {
  file: (page, path) => answered(page, () => page.setInputFiles("#file", path)),
  drop: (page, path) => answered(page, () => drop(page, path)),
  sample: (page, number) => answered(page, () => page.locator("#samples button").nth(number).click()),
  choose: (page, name) => page.locator(`input[value="${name}"]`).check(),
  badFile: async (page, path) => {
    await page.setInputFiles("#file", path);
    await page.locator("#problem:visible").waitFor();
  },
  camera: async (page) => {
    await page.locator("#camera").click();
    await page.waitForFunction(() => Number(document.body.dataset.frames) >= 5);
  },
  frame: (page) => answered(page, () => page.locator("#frame").click()),
  check: async (page) => {
    await page.locator("#check").click();
    await page.locator("#verdict.good, #verdict.bad").waitFor();
  },
  picture: (page, path, options = {}) => page.screenshot({ path, ...options }),
};

/** Do something, and wait until the page has answered with every variant. */
async function answered(page, act) {
  const before = await page.evaluate(() => Number(document.body.dataset.answers ?? 0));
  await act();
  await page.waitForFunction((count) => Number(document.body.dataset.answers ?? 0) > count, before);
}

async function drop(page, path) {
  const transfer = await page.evaluateHandle(
    ([bytes, name]) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(bytes)], name));
      return data;
    },
    [[...readFileSync(path)], basename(path)],
  );
  await page.dispatchEvent("#drop", "drop", { dataTransfer: transfer });
}

/** Read what a person would see. */
function read() {
  const text = (element) => element?.textContent ?? "";
  const visible = (id) => (document.getElementById(id).hidden ? "" : text(document.getElementById(id)));
  return {
    state: document.body.dataset.state,
    bars: [...document.querySelectorAll("#bars li")].map((li) => [...li.querySelectorAll("span:not(.swatch)")].map(text)),
    rows: Object.fromEntries(
      [...document.querySelectorAll("#variants tr")].map((row) => [
        row.dataset.variant,
        { refused: row.classList.contains("refused"), cells: [...row.cells].slice(1).map(text) },
      ]),
    ),
    verdict: visible("verdict"),
    problem: visible("problem"),
    status: text(document.getElementById("status")),
    seen: document.getElementById("seen").toDataURL("image/png"),
    drawn: document.getElementById("picture").toDataURL("image/png"),
    overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  };
}

async function plant(page, faults) {
  for (const [address, found, replacement] of faults) {
    await page.route(`**${address}`, async (route) => {
      const answer = await route.fetch();
      const body = await answer.text();
      if (!body.includes(found)) throw new Error(`${address} has no ${found}: the fault cannot be planted`);
      await route.fulfill({ response: answer, body: body.replace(found, replacement) });
    });
  }
}

const browser = await chromium.launch({ executablePath: job.chromium, args: FLAGS });
try {
  const page = await browser.newPage({ viewport: { width: 1000, height: 900 }, ...job.view });
  page.setDefaultTimeout(60 * SECONDS);
  const [violations, foreign, errors, said] = [[], [], [], []];
  // What the policy blocks is no request; it is only seen as this event.
  await page.exposeFunction("reportViolation", (text) => violations.push(text));
  await page.addInitScript(() =>
    document.addEventListener("securitypolicyviolation", (event) =>
      window.reportViolation(`${event.violatedDirective} ${event.blockedURI}`),
    ),
  );
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (origin !== new URL(job.url).origin && !["blob:", "data:"].includes(protocol)) foreign.push(request.url());
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  await plant(page, job.faults ?? []);
  await page.goto(job.url);
  await page.locator('[data-state="ready"], [data-state="failed"]').waitFor();
  said.push(await page.evaluate(read));
  for (const [name, ...values] of job.steps) {
    await steps[name](page, ...values);
    said.push(await page.evaluate(read));
  }
  const isolated = await page.evaluate(() => crossOriginIsolated);
  console.log(JSON.stringify({ violations, foreign, errors, isolated, said }));
} finally {
  await browser.close();
}
