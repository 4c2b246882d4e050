// Let MediaPipe Tasks in Chromium answer a job's images: {kind, files, images: [base64], shape: [height, width]}.
import { watched } from "./watched.mjs";

await watched(async (page, { url, kind, files, images, shape }) => {
  const answers = {};
  for (const file of files) {
    await page.goto(url); // a page of its own: after a graph that failed, MediaPipe's next one may hang
    await page.waitForFunction(() => window.ask);
    answers[file] = await page.evaluate((request) => window.ask(...request), [kind, file, images, shape]);
  }
  return { answers };
});
