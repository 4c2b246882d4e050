// Any picture as model input, pixel for pixel as the Python class Preprocess makes it. Runs in browsers and in node.
// The arithmetic is float32 with Math.fround, because the training pipeline's is.

const f32 = Math.fround;

/** Lay a picture of `size` = [height, width] on the canvas: its scaled size and where its corner comes to lie. */
export function fit(size, spec) {
  const canvas = spec.image_size;
  if (spec.resize === "stretch") return { scaled: [...canvas], offset: [0, 0] };
  const ratios = canvas.map((extent, axis) => extent / size[axis]);
  const scale = spec.resize === "crop" ? Math.max(...ratios) : Math.min(...ratios);
  const scaled = size.map((extent) => Math.max(1, roundHalfToEven(extent * scale)));
  return { scaled, offset: canvas.map((extent, axis) => Math.floor((extent - scaled[axis]) / 2)) };
}

/** Turn RGBA pixels {data, width, height} into the model's: Uint8Array of H*W*C, row by row. */
export function preprocess(picture, spec) {
  const size = [picture.height, picture.width];
  const { scaled, offset } = fit(size, spec);
  const [rows, columns] = [0, 1].map((axis) => {
    const scale = f32(scaled[axis] / size[axis]);
    return spans(spec.image_size[axis], size[axis], scale, offset[axis]);
  });
  const source = spec.channels === 1 ? grey(picture) : picture.data;
  return resize(source, picture.width, spec, rows, columns);
}

/** Round to the nearest integer, ties to the even one (Math.round takes them upwards). */
export function roundHalfToEven(value) {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

function grey({ data, width, height }) {
  const result = new Uint8Array(width * height);
  const [red, green, blue] = [f32(0.299), f32(0.587), f32(0.114)];
  for (let i = 0; i < result.length; i++) {
    const sum = f32(f32(red * data[4 * i]) + f32(green * data[4 * i + 1]));
    result[i] = roundHalfToEven(f32(sum + f32(blue * data[4 * i + 2])));
  }
  return result;
}

/** For each output position: the first input that counts, and the weights of it and those after it. */
function spans(count, extent, scale, translation) {
  const inverse = f32(1 / scale);
  const shift = f32(-inverse * translation);
  const radius = Math.max(inverse, 1); // a filter as wide as one output pixel, and never narrower than an input pixel
  const narrowing = f32(1 / radius);
  const result = [];
  for (let position = 0; position < count; position++) {
    const centre = f32(f32((position + 0.5) * inverse) + shift);
    if (centre < 0 || centre > extent) {
      result.push({ start: 0, weights: [] }); // outside the picture: black
      continue;
    }
    const start = clamp(Math.ceil(f32(f32(centre - radius) - 0.5)), extent);
    const end = clamp(Math.floor(f32(f32(centre + radius) - 0.5)), extent);
    result.push({ start, weights: triangle(start, end, centre, narrowing) });
  }
  return result;
}

function triangle(start, end, centre, narrowing) {
  const weights = new Float32Array(end - start + 1);
  let total = 0;
  for (let i = 0; i < weights.length; i++) {
    const distance = f32(f32(start + i + 0.5) - centre);
    weights[i] = Math.max(0, f32(1 - Math.abs(f32(distance * narrowing))));
    total = f32(total + weights[i]);
  }
  const inverse = f32(1 / total);
  return weights.map((weight) => weight * inverse);
}

function clamp(index, extent) {
  return Math.min(Math.max(index, 0), extent - 1);
}

/** Filter down the columns, then along the rows: in this order, or the last bits differ. */
function resize(source, width, { image_size: [height, across], channels }, rows, columns) {
  const stride = channels === 1 ? 1 : 4;
  const result = new Uint8Array(height * across * channels);
  const line = new Float32Array(width * channels);
  for (let y = 0; y < height; y++) {
    sumRows(line, source, width, channels, stride, rows[y]);
    for (let x = 0; x < across; x++) {
      const { start, weights } = columns[x];
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let i = 0; i < weights.length; i++) sum = f32(sum + f32(weights[i] * line[(start + i) * channels + channel]));
        result[(y * across + x) * channels + channel] = roundHalfToEven(sum);
      }
    }
  }
  return result;
}

function sumRows(line, source, width, channels, stride, { start, weights }) {
  line.fill(0);
  for (let i = 0; i < weights.length; i++) {
    const weight = weights[i];
    let from = (start + i) * width * stride;
    for (let to = 0; to < line.length; to += channels, from += stride) {
      for (let channel = 0; channel < channels; channel++) line[to + channel] += f32(weight * source[from + channel]);
    }
  }
}
