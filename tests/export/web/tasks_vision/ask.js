// Let MediaPipe's task of one file answer images: window.ask, which ask.mjs calls.
import { ImageClassifier, ImageSegmenter } from "/runtime/vision_bundle.mjs";

const WASM = { wasmLoaderPath: "/runtime/wasm.js", wasmBinaryPath: "/runtime/wasm.wasm" };
const KINDS = { classifier: [ImageClassifier, classify], segmenter: [ImageSegmenter, segment] };

/**
 * Answer images, given as RGB bytes in base64, all of one shape [height, width].
 * Return {labels, scores: one array per image, in the order of the file's output}, or {refused: the reason}.
 */
window.ask = async (kind, file, images, shape) => {
  const [Task, answer] = KINDS[kind];
  const settings = kind === "segmenter" ? { outputConfidenceMasks: true, outputCategoryMask: false } : {};
  let task;
  try {
    task = await Task.createFromOptions(WASM, { baseOptions: { modelAssetPath: file, delegate: "CPU" }, ...settings });
  } catch (error) {
    return { refused: String(error) };
  }
  const answers = images.map((image) => answer(task, picture(image, shape)));
  task.close();
  return { labels: answers[0].labels, scores: answers.map((one) => one.scores) };
};

function picture(base64, [height, width]) {
  const pixels = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  const data = new Uint8ClampedArray(4 * height * width).fill(255);
  for (let i = 0; i < height * width; i++) {
    for (let c = 0; c < 3; c++) data[4 * i + c] = pixels[3 * i + c];
  }
  return new ImageData(data, width, height);
}

function classify(task, image) {
  const { categories } = task.classify(image).classifications[0];
  categories.sort((one, other) => one.index - other.index);
  return { labels: categories.map((one) => one.categoryName), scores: categories.map((one) => one.score) };
}

function segment(task, image) {
  const masks = task.segment(image).confidenceMasks.map((mask) => mask.getAsFloat32Array());
  const scores = Array.from(masks[0], (_, pixel) => masks.map((mask) => mask[pixel]));
  return { labels: task.getLabels(), scores };
}
