// The page: what is loaded, which variant answers, and what happens when a picture comes.

import { agreement, classMap, isMask, rank } from "/answers.js";
import { drawPicture, drawPixels, maskOf } from "/drawing.js";
import { checkAnswers, largestDifference, readGolden, sameLabels } from "/golden.js";
import { connectSources } from "/sources.js";
import { fromPixels } from "/picture.js";
import { preprocess } from "/preprocess.js";
import { median, startRuntime, Variant } from "/variant.js";
import { $, announce, element, fillRow, markChosen, percent, showBars, showProblem, showVariants } from "/view.js";
import { small, time } from "/view.js";

const FRAMES = 9; // whose times the latency of a live picture is the median of
const page = { facts: null, labels: [], spec: null, golden: [], models: new Map(), chosen: null, picture: null };
let times = [];
let queue = Promise.resolve();

/** Do one thing after the other: the runtime computes one answer at a time. */
function inTurn(job) {
  queue = queue.then(job).catch((error) => showProblem(String(error.message ?? error)));
  return queue;
}

/** Let what was written appear: the runtime computes without a pause in which the browser could paint. */
function painted() {
  return new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
}

async function start() {
  page.facts = await (await fetch("/facts.json")).json();
  const [labels, spec] = await Promise.all(["labels.txt", "preprocess.json"].map((name) => fetch(`/bundle/${name}`)));
  page.labels = (await labels.text()).split("\n").filter((line, i, all) => line || i < all.length - 1);
  page.spec = await spec.json();
  if (page.facts.files.includes("golden.json")) {
    page.golden = readGolden(await (await fetch("/bundle/golden.json")).json());
  }
  await startRuntime();
  for (const fact of page.facts.variants) page.models.set(fact.name, await load(fact));
  choose(page.facts.chosen);
  describe();
  document.body.dataset.state = "ready";
}

async function load(fact) {
  try {
    return await Variant.load(fact);
  } catch (error) {
    return String(error.message ?? error);
  }
}

function describe() {
  const { facts, spec, labels, golden } = page;
  const [height, width] = spec.image_size;
  document.title = `${facts.title} – pipeline demo`;
  $("title").textContent = facts.title;
  $("about").textContent =
    `${labels.length} labels, ${width}×${height} ${spec.channels === 1 ? "grey" : "RGB"}. ` +
    "The exported files run in this browser; no picture leaves this machine.";
  $("seen-caption").textContent = `What the model sees: ${width}×${height} pixels.`;
  $("check").disabled = golden.length === 0;
  if (golden.length === 0) $("verdict").textContent = "There is no golden.json beside these files; export the run again.";
  $("samples").hidden = golden.length === 0;
  $("samples").querySelector("ul").replaceChildren(...golden.map(sample));
  if (!isMask(model().outputShape)) return;
  $("opacity-row").hidden = false;
  $("answer-column").textContent = "Largest class";
  $("share-heading").textContent = "Pixels";
  $("distance-heading").textContent = "Same pixels";
}

function sample({ id, pixels }) {
  const canvas = element("canvas");
  drawPixels(canvas, pixels, page.spec);
  const button = element("button", { type: "button", title: id }, canvas);
  button.setAttribute("aria-label", `Test image ${id}`);
  const picture = fromPixels(pixels, page.spec.image_size, page.spec.channels);
  button.addEventListener("click", () => inTurn(() => show(picture)));
  return element("li", {}, button);
}

/** Let a variant answer from now on; without a name, or where the runtime refuses it, the first that is taken. */
function choose(name) {
  const taken = page.facts.variants.map((fact) => fact.name).filter((known) => typeof page.models.get(known) !== "string");
  if (taken.length === 0) throw new Error("the browser's runtime takes none of these files");
  page.chosen = taken.includes(name) ? name : taken[0];
  if (name && page.chosen !== name) {
    showProblem(`The browser's runtime does not take ${name}: ${page.models.get(name)} Here ${page.chosen} answers.`);
  }
  showVariants(page.facts.variants, page.models, page.chosen, rechoose);
}

function rechoose(name) {
  page.chosen = name;
  times = [];
  $("verdict").textContent = "";
  markChosen(name);
  if (page.picture) inTurn(() => show(page.picture));
}

function model() {
  return page.models.get(page.chosen);
}

/** Answer a still picture with the chosen variant, then with the others. */
async function show(picture) {
  showProblem(null);
  const pixels = preprocess(picture, page.spec);
  const variant = model(); // another one may be chosen while this one's answers are painted
  const { values, milliseconds } = await variant.measure(pixels);
  const best = write(variant, picture, pixels, values, milliseconds);
  announce(`${best.label}, ${percent(best.share)}, ${time(milliseconds)} milliseconds with ${variant.name}`);
  fillRow(variant.name, { best, milliseconds });
  for (const other of page.models.values()) {
    await painted();
    if (typeof other !== "string" && other !== variant) await compare(other, pixels, values);
  }
  document.body.dataset.answers = Number(document.body.dataset.answers ?? 0) + 1;
}

async function compare(other, pixels, expected) {
  const { values, milliseconds } = await other.measure(pixels);
  const [best] = rank(values, page.labels, other.outputShape);
  const distance = isMask(other.outputShape)
    ? percent(agreement(...[values, expected].map((output) => classMap(output, page.labels.length))))
    : small(largestDifference(values, expected));
  fillRow(other.name, { best, distance, milliseconds });
}

/** Answer one frame of a live picture, with the chosen variant only. */
async function watch(picture) {
  const pixels = preprocess(picture, page.spec);
  const variant = model();
  const before = performance.now();
  const values = await variant.run(pixels);
  times = [...times, performance.now() - before].slice(-FRAMES);
  const best = write(variant, picture, pixels, values, median(times));
  announce(best.label);
  markChosen(variant.name);
  document.body.dataset.frames = Number(document.body.dataset.frames ?? 0) + 1;
}

/** Draw the picture and write its answer; return the best label. */
function write(variant, picture, pixels, values, milliseconds) {
  const shape = variant.outputShape;
  page.picture = picture;
  page.mask = isMask(shape) ? maskOf(values, shape, page.facts.colours, page.spec) : null;
  const ranking = rank(values, page.labels, shape);
  showBars(ranking, page.mask ? page.facts.colours : null);
  $("timing").textContent = `${time(milliseconds)} ms with ${variant.name}`;
  $("seen-figure").hidden = false;
  drawPixels($("seen"), pixels, page.spec);
  draw();
  return ranking[0];
}

function draw() {
  for (const [id, hidden] of [["picture", false], ["prompt", true]]) $(id).hidden = hidden;
  $("drop").classList.add("full");
  $("picture").setAttribute("aria-label", `The picture, ${page.picture.width}×${page.picture.height} pixels`);
  drawPicture($("picture"), page.picture, { mask: page.mask, opacity: $("opacity").value / 100 });
}

async function check() {
  const verdict = $("verdict");
  verdict.className = "verdict";
  verdict.textContent = "Checking…";
  await painted();
  const variant = model();
  const { checked, wrong, worst, allowed, agrees } = await checkAnswers(variant, page.golden);
  const labelled = sameLabels(variant, page.labels);
  const figures = `largest difference ${small(worst)}, allowed ${small(allowed)}`;
  const sentences = {
    [`✓ ${variant.name} gives the recorded answers on all ${checked} images (${figures}).`]: agrees && labelled,
    [`✗ ${variant.name} gives other answers than recorded on ${wrong} of ${checked} images (${figures}).`]: wrong > 0,
    [`✗ No answers of ${variant.name} are recorded.`]: checked === 0,
    [`✗ labels.txt is not the list of labels inside ${variant.name}.`]: !labelled,
  };
  verdict.textContent = Object.keys(sentences).filter((sentence) => sentences[sentence]).join(" ");
  verdict.classList.add(agrees && labelled ? "good" : "bad");
}

function fail(error) {
  showProblem(`The demo cannot start: ${error.message ?? error}`);
  $("about").textContent = "";
  for (const control of ["file", "camera"]) $(control).disabled = true;
  document.body.dataset.state = "failed";
  return new Promise(() => {}); // no job has its turn
}

// Before the files are loaded, too: a picture that comes early waits for its turn, and none leaves the page.
connectSources({ show: (picture) => inTurn(() => show(picture)), live: (picture) => inTurn(() => watch(picture)) });
$("check").addEventListener("click", () => inTurn(check));
$("opacity").addEventListener("input", () => page.picture && draw());
queue = start().catch(fail);
