// Where pictures come from: a file that is chosen, dropped or pasted, and the camera.

import { Camera, fromFile } from "/picture.js";
import { $, showProblem } from "/view.js";

/** Connect the page's controls: `show` is given still pictures, `live` one frame of the camera after the other. */
export function connectSources({ show, live }) {
  const camera = new Camera($("video"));
  const open = async (file) => {
    if (!file) return;
    stop(camera);
    try {
      show(await fromFile(file));
    } catch {
      showProblem(`${file.name} is not a picture that this browser can read.`);
    }
  };
  connectFiles(open);
  $("camera").addEventListener("click", () => watch(camera, live));
  $("stop").addEventListener("click", () => stop(camera));
  $("frame").addEventListener("click", () => {
    const picture = camera.frame();
    stop(camera);
    show(picture);
  });
}

function connectFiles(open) {
  $("file").addEventListener("change", () => {
    open($("file").files[0]);
    $("file").value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => open(event.clipboardData.files[0]));
  // The whole page takes a drop: one that misses the box would otherwise leave the page.
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
  document.addEventListener("dragleave", () => $("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
    open(event.dataTransfer.files[0]);
  });
}

async function watch(camera, live) {
  try {
    if (!(await camera.start())) return;
  } catch (error) {
    stop(camera);
    return showProblem(`The camera cannot be used: ${error.message || error.name}.`);
  }
  showProblem(null);
  showButtons(true);
  $("frame").focus();
  while (camera.on) {
    await live(camera.frame());
    await new Promise(requestAnimationFrame);
  }
}

function stop(camera) {
  const focused = [$("frame"), $("stop")].includes(document.activeElement);
  camera.stop();
  showButtons(false);
  if (focused) $("camera").focus();
}

function showButtons(on) {
  $("camera").hidden = on;
  $("frame").hidden = $("stop").hidden = !on;
}
