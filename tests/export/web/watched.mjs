// A page in Chromium that is watched: what it asks of others, what its policy stops, what it throws.
//
// A job, on stdin: {url, chromium, modules, faults: [[address, found, replacement]], view, ...}.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const SECONDS = 1000;
const FLAGS = [
  "--no-sandbox",
  "--use-fake-device-for-media-stream",
  "--use-fake-ui-for-media-stream",
  "--enable-unsafe-swiftshader", // WebGL without a GPU
];

/** Let `use(page, job)` visit a page with the job's planted faults; print what it returns and what was watched. */
export async function watched(use) {
  const job = JSON.parse(readFileSync(0, "utf8"));
  const { chromium } = createRequire(`${job.modules}/`)("playwright-core");
  const browser = await chromium.launch({ executablePath: job.chromium, args: FLAGS });
  try {
    const page = await browser.newPage({ viewport: { width: 1000, height: 900 }, ...job.view });
    page.setDefaultTimeout(60 * SECONDS);
    const seen = await watch(page, new URL(job.url).origin);
    await plant(page, job.faults ?? []);
    const found = await use(page, job);
    console.log(JSON.stringify({ ...seen, ...found }));
  } finally {
    await browser.close();
  }
}

async function watch(page, own) {
  const [violations, foreign, errors] = [[], [], []];
  // What the policy blocks is no request; it is only seen as this event.
  await page.exposeFunction("reportViolation", (text) => violations.push(text));
  await page.addInitScript(() =>
    document.addEventListener("securitypolicyviolation", (event) =>
      window.reportViolation(`${event.violatedDirective} ${event.blockedURI}`),
    ),
  );
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (origin !== own && !["blob:", "data:"].includes(protocol)) foreign.push(request.url());
  });
  page.on("pageerror", (error) => errors.push(String(error)));
  return { violations, foreign, errors };
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
