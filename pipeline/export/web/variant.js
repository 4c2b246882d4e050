// One .tflite file in the LiteRT.js runtime: bytes 0..255 in, real numbers out, and the time that it takes.

import { loadAndCompile, loadLiteRt, Tensor } from "/runtime/litert.js";

const RUNS = 9;
const MOST_MILLISECONDS = 600; // for all runs of one measurement; a large model gets fewer

/** Load the WebAssembly runtime, once. */
export function startRuntime() {
  return loadLiteRt("/runtime/wasm/");
}

/** A loaded file. The one thing it does not know is what the runtime hides: an integer output's scale. */
export class Variant {
  constructor(facts, model) {
    this.facts = facts;
    this.model = model;
    [this.input] = model.getInputDetails();
    [this.output] = model.getOutputDetails();
  }

  /** Load a file; throws the runtime's own words where it does not take it. */
  static async load(facts) {
    const model = await loadAndCompile(`/bundle/${facts.name}.tflite`, { accelerator: "wasm" });
    return new Variant(facts, model);
  }

  get name() {
    return this.facts.name;
  }

  /** [1, K] of a classifier, [1, H, W, K] of a segmenter. */
  get outputShape() {
    return [...this.output.shape];
  }

  /** Answer one picture: Float32Array. */
  async run(pixels) {
    const [tensor] = await this.#invoke(pixels);
    const stored = tensor.toTypedArray().slice();
    tensor.delete();
    return this.#toReal(stored);
  }

  /** Answer one picture and say what a run takes: the median of several, in milliseconds, the first not counted. */
  async measure(pixels) {
    const values = await this.run(pixels);
    const times = [];
    for (const begun = performance.now(); times.length < RUNS && performance.now() - begun < MOST_MILLISECONDS; ) {
      const before = performance.now();
      const [tensor] = await this.#invoke(pixels);
      tensor.toTypedArray();
      times.push(performance.now() - before);
      tensor.delete();
    }
    return { values, milliseconds: median(times) };
  }

  async #invoke(pixels) {
    const array = this.input.dtype === "uint8" ? pixels : new Float32Array(pixels);
    const tensor = new Tensor(array, [...this.input.shape]);
    try {
      return await this.model.run([tensor]);
    } finally {
      tensor.delete();
    }
  }

  #toReal(stored) {
    const { dtype, scale, zero_point: zero } = this.facts.output;
    if (dtype === "float32") return stored;
    return Float32Array.from(stored, (value) => (value - zero) * scale);
  }
}

export function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
