// Drive the demo in Chromium by the steps of a job on stdin; answer with what the page said after each.
//
// A job is watched.mjs's, with steps: [[name, ...arguments]], and a picture that is chosen before all is loaded.

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { watched } from "./watched.mjs";

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

await watched(async (page, job) => {
  const said = [];
  await page.goto(job.url);
  if (job.early) await answered(page, () => page.setInputFiles("#file", job.early));
  await page.locator('[data-state="ready"], [data-state="failed"]').waitFor();
  said.push(await page.evaluate(read));
  for (const [name, ...values] of job.steps) {
    await steps[name](page, ...values);
    said.push(await page.evaluate(read));
  }
  return { isolated: await page.evaluate(() => crossOriginIsolated), said };
});
