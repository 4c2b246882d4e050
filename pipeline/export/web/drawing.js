// Pictures on canvases: the original, the model's view of it, and masks laid over it.

import { classMap } from "/answers.js";
import { fromPixels } from "/picture.js";
import { fit } from "/preprocess.js";

const SMALL = 160; // pictures with no more pixels on a side are shown with sharp pixels
const MOST = 1600; // and larger ones are drawn no larger than this

/** Draw a picture, with the mask of `values` over it where there is one. */
export function drawPicture(canvas, picture, { mask = null, opacity = 0 } = {}) {
  const factor = Math.min(1, MOST / Math.max(picture.width, picture.height));
  // A small picture is drawn larger, or its mask could not be finer than its pixels.
  const zoom = picture.width <= SMALL && picture.height <= SMALL ? 4 : factor;
  canvas.width = Math.max(1, Math.round(picture.width * zoom));
  canvas.height = Math.max(1, Math.round(picture.height * zoom));
  canvas.classList.toggle("small", zoom > 1);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = zoom < 1;
  context.drawImage(onCanvas(picture), 0, 0, canvas.width, canvas.height);
  if (mask) drawMask(context, mask, picture, zoom, opacity);
}

/** Draw model input as it is. */
export function drawPixels(canvas, pixels, spec) {
  [canvas.height, canvas.width] = spec.image_size;
  canvas.getContext("2d").putImageData(fromPixels(pixels, spec.image_size, spec.channels), 0, 0);
}

/** Make what drawPicture lays over a picture: the most probable class of each pixel, and where it belongs. */
export function maskOf(values, [, height, width, count], colours, spec) {
  return { size: [height, width], classes: classMap(values, count), colours, spec };
}

function drawMask(context, { size: [height, width], classes, colours, spec }, picture, zoom, opacity) {
  const image = new ImageData(width, height);
  classes.forEach((index, pixel) => image.data.set([...colours[index], 255], 4 * pixel));
  const place = placeOf(picture, spec);
  context.globalAlpha = opacity;
  context.imageSmoothingEnabled = false;
  context.drawImage(onCanvas(image), ...place.map((extent) => extent * zoom));
  context.globalAlpha = 1;
}

/** Where the model's canvas lies on the original picture: left, top, width, height. */
function placeOf(picture, spec) {
  const size = [picture.height, picture.width];
  const { scaled, offset } = fit(size, spec);
  const pixel = size.map((extent, axis) => extent / scaled[axis]);
  const [top, left] = offset.map((start, axis) => -start * pixel[axis]);
  const [height, width] = spec.image_size.map((extent, axis) => extent * pixel[axis]);
  return [left, top, width, height];
}

function onCanvas(image) {
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
