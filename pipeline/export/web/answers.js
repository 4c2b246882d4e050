// What an output means: probabilities of labels, or one class per pixel.

/** Return [{label, share}], the largest first: probabilities, or for a mask each class's share of the pixels. */
export function rank(values, labels, outputShape) {
  const shares = isMask(outputShape) ? sharesOf(classMap(values, labels.length), labels.length) : [...values];
  return shares.map((share, index) => ({ index, label: labels[index], share })).sort((a, b) => b.share - a.share);
}

/** Does the output say something of every pixel? */
export function isMask(outputShape) {
  return outputShape.length === 4;
}

/** Return the most probable class of each pixel. */
export function classMap(values, classes) {
  const map = new Uint16Array(values.length / classes);
  for (let pixel = 0, at = 0; pixel < map.length; pixel++, at += classes) {
    for (let k = 1; k < classes; k++) if (values[at + k] > values[at + map[pixel]]) map[pixel] = k;
  }
  return map;
}

/** Return the part of the pixels where two maps say the same. */
export function agreement(one, other) {
  let equal = 0;
  for (let i = 0; i < one.length; i++) equal += one[i] === other[i];
  return equal / one.length;
}

function sharesOf(map, classes) {
  const counts = new Array(classes).fill(0);
  for (const index of map) counts[index] += 1;
  return counts.map((count) => count / map.length);
}
