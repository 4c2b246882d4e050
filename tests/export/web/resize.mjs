// Fit the RGBA pictures that stdin describes with the page's module; answer with the pixels as base64.
import { readFileSync } from "node:fs";
import { preprocess } from "../../../pipeline/export/web/preprocess.js";

const jobs = JSON.parse(readFileSync(0, "utf8"));
const answers = jobs.map(({ rgba, width, height, spec }) => {
  const data = new Uint8ClampedArray(Buffer.from(rgba, "base64"));
  return Buffer.from(preprocess({ data, width, height }, spec)).toString("base64");
});
console.log(JSON.stringify(answers));
