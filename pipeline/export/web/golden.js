// Does this browser give the answers that were recorded when the files were exported?

/** Return the golden pictures as bytes: [{id, pixels: Uint8Array, answers: {variant: Float32Array}}]. */
export function readGolden(json) {
  return json.images.map(({ id, pixels, answers }) => ({
    id,
    pixels: bytes(pixels),
    answers: Object.fromEntries(
      Object.entries(answers).map(([name, text]) => [name, new Float32Array(bytes(text).buffer)]),
    ),
  }));
}

/** Run every golden picture through a variant: how many answers there are, how far off the worst is, what is allowed. */
export async function checkAnswers(variant, pictures) {
  const allowed = variant.facts.tolerance;
  let [worst, wrong, checked] = [0, 0, 0];
  for (const { pixels, answers } of pictures) {
    const recorded = answers[variant.name];
    if (!recorded) continue;
    const difference = largestDifference(await variant.run(pixels), recorded);
    checked += 1;
    worst = Math.max(worst, difference);
    if (!(difference <= allowed)) wrong += 1; // a NaN is wrong, too
  }
  return { checked, wrong, worst, allowed, agrees: checked > 0 && wrong === 0 };
}

/** Do the labels beside the files equal those inside this one? True where it has none. */
export function sameLabels(variant, labels) {
  const inside = variant.facts.labels;
  return inside === null || (inside.length === labels.length && inside.every((name, i) => name === labels[i]));
}

export function largestDifference(found, expected) {
  if (found.length !== expected.length) return Infinity;
  let largest = 0;
  for (let i = 0; i < found.length; i++) {
    largest = Math.max(largest, Math.abs(found[i] - expected[i])); // which keeps a NaN
  }
  return largest;
}

function bytes(base64) {
  return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
}
