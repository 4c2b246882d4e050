// From a file or the camera to RGBA pixels, upright.

/** Decode an image file as browsers show it: turned by its EXIF orientation, colour profile ignored as in training. */
export async function fromFile(file) {
  const options = { imageOrientation: "from-image", colorSpaceConversion: "none", premultiplyAlpha: "none" };
  const bitmap = await createImageBitmap(file, options);
  const picture = fromSource(bitmap, bitmap.width, bitmap.height);
  bitmap.close();
  return picture;
}

/** Take the pixels of anything that a canvas can draw: {data, width, height}. */
export function fromSource(source, width, height) {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(source, 0, 0);
  return context.getImageData(0, 0, width, height);
}

/** Turn model input back into a picture, for showing. */
export function fromPixels(pixels, [height, width], channels) {
  const picture = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) picture.data[4 * i + c] = pixels[i * channels + (channels === 1 ? 0 : c)];
    picture.data[4 * i + 3] = 255;
  }
  return picture;
}

/** The camera, as a stream of frames. */
export class Camera {
  #starting = false;

  constructor(video) {
    this.video = video;
  }

  get on() {
    return this.video.srcObject !== null;
  }

  /** Show the camera in the video; false where it is shown or asked for already, as by a double click. */
  async start() {
    if (this.on || this.#starting) return false;
    this.#starting = true;
    try {
      this.video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
      await this.video.play();
    } finally {
      this.#starting = false;
    }
    return true;
  }

  frame() {
    return fromSource(this.video, this.video.videoWidth, this.video.videoHeight);
  }

  stop() {
    for (const track of this.video.srcObject?.getTracks() ?? []) track.stop();
    this.video.srcObject = null;
  }
}
