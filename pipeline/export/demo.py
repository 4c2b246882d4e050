"""Run a bundle's very own .tflite files in the browser: a page on this machine, fed by a fixed table of files."""

import io
import json
import logging
import re
import webbrowser
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.export import flatbuffer
from pipeline.export.bundle import require_whole
from pipeline.export.golden import FLOAT_ANSWER, HYBRID_ANSWER
from pipeline.export.interpreter import LiteModel
from pipeline.export.loopback import Page, Server
from pipeline.export.metadata import LABELS, split_labels
from pipeline.export.npm import install
from pipeline.tasks.drawing import palette

log = logging.getLogger(__name__)

_PREPROCESS, _GOLDEN = "preprocess.json", "golden.json"
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.tflite")  # a dot begins what was never finished
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".wasm": "application/wasm",
    ".tflite": "application/octet-stream",
}
_WEB = ("index.html", "style.css", "icon.svg")
# The runtime takes the first where the browser has relaxed SIMD, else the second.
_RUNTIMES = ("litert_wasm_internal", "litert_wasm_compat_internal")
_BARE_IMPORT, _OWN_IMPORT = b'from "@litertjs/wasm-utils"', b'from "/runtime/wasm-utils.js"'


def demo(source: Path | str, *, port: int = 0, variant: str | None = None, show: bool = True) -> None:
    """Serve the page until Ctrl-C; `show` opens it in the default browser."""
    server = open_server(source, port=port, variant=variant)
    log.info("the demo is at %s (on this machine only); Ctrl-C ends it", server.url)
    if show:
        webbrowser.open(server.url)
    with server:
        server.serve_forever()


def open_server(source: Path | str, *, port: int = 0, variant: str | None = None) -> Server:
    """Return a server of the page for a run folder, a bundle's folder or its zip; it listens, and serves when told.

    Raises UserError for what is no such thing, a variant that it does not have, a port in use, or no npm to install
    the runtime with.
    """
    bundle = _find_bundle(Path(source))
    facts = _read_facts(bundle, Path(source), variant)
    pages = {f"/bundle/{name}": _page(bundle / name) for name in facts["files"]}
    pages["/facts.json"] = Page(json.dumps(facts).encode(), _KINDS[".json"])
    return Server(_web_pages() | _runtime_pages() | pages, port)


def _find_bundle(source: Path) -> Path | zipfile.Path:
    """Return the folder, on disk or inside a zip, that holds the .tflite files."""
    if not source.exists():
        raise UserError(f"{source} does not exist; give a run folder, an export folder or a bundle's zip")
    # A .tflite file with its labels behind it is a zip archive, too.
    if source.is_file() and (source.suffix == ".tflite" or not zipfile.is_zipfile(source)):
        raise UserError(f"{source} is neither a run folder, an export folder nor a bundle's zip", usage=True)
    if source.is_file():
        require_whole(source)
    folder = source if source.is_dir() else zipfile.Path(source)
    for candidate in (folder, folder / "export", *(() if source.is_dir() else folder.iterdir())):
        if candidate.is_dir() and any(_FILE_NAME.fullmatch(entry.name) for entry in candidate.iterdir()):
            return candidate
    raise UserError(f"{source} has no .tflite files; make them with: pipeline export RUN")


def _read_facts(bundle: Path | zipfile.Path, source: Path, chosen: str | None) -> dict[str, Any]:
    """Return what the page must know of the files and cannot read from them itself."""
    for name in (LABELS, _PREPROCESS):
        if not (bundle / name).is_file():
            raise UserError(f"{source} has no {name} beside its .tflite files; export the run again")
    paths = [entry for entry in bundle.iterdir() if _FILE_NAME.fullmatch(entry.name)]
    paths.sort(key=lambda path: (path.name != "float32.tflite", path.name))
    labels = split_labels((bundle / LABELS).read_text(encoding="utf-8"))
    variants = [_describe(path, len(labels)) for path in paths]
    names = [variant["name"] for variant in variants]
    if chosen is not None and chosen not in names:
        raise UserError(f"{source} has no variant {chosen!r}; it has {', '.join(names)}", usage=True)
    golden = [_GOLDEN] if (bundle / _GOLDEN).is_file() else []
    files = [LABELS, _PREPROCESS, *golden, *(path.name for path in paths)]
    return {
        "title": _title(source.resolve()),
        "variants": variants,
        "chosen": chosen,
        "files": files,
        "colours": palette(len(labels)).tolist(),
    }


def _title(source: Path) -> str:
    run = source.parent if source.name == "export" else source
    return run.stem if run.is_file() else run.name


def _describe(path: Path | zipfile.Path, labels: int) -> dict[str, Any]:
    content = path.read_bytes()
    model = LiteModel(content, name=path.name)
    if model.output.shape[-1] != labels:
        raise UserError(f"{path.name} gives {model.output.shape[-1]} classes, but labels.txt beside it has {labels}")
    return {
        "name": path.name.removesuffix(".tflite"),
        "bytes": len(content),
        "output": {
            "dtype": model.output.dtype.name,
            "scale": float(model.output.scale),
            "zero_point": int(model.output.zero_point),
        },
        "tolerance": tolerance(content),
        "labels": labels_inside(content),
    }


def tolerance(content: bytes) -> float:
    """Return how far a file's answers may be apart between two runtimes that both run it right.

    Integers: one step of the output. Floats: the rounding of another order of summation. In between lie files that
    round activations while running: a last bit can move one to the next of 255 steps, and all that follows from it.
    """
    if any(map(_rounds_while_running, flatbuffer.operators(content))):
        return HYBRID_ANSWER
    step = _output_step(content)
    return 1.001 * step if step else FLOAT_ANSWER


def _rounds_while_running(operator: flatbuffer.Operator) -> bool:
    types = {tensor.dtype for tensor in operator.inputs}
    return operator.name in flatbuffer.WITH_WEIGHTS and "float32" in types and bool(types & {"int8", "int4"})


def _output_step(content: bytes) -> float:
    """Return by how much neighbouring values of a file's output differ: 0 where it is computed in float."""
    [graph] = flatbuffer.read(content).subgraphs
    [port] = graph.outputs
    makers = [op for op in graph.operators if port in op.outputs]
    # A float output behind DEQUANTIZE has the steps of the integers in front of it.
    for index in (port, *(int(op.inputs[0]) for op in makers if len(op.inputs) == 1)):
        found = graph.tensors[index].quantization
        if found is not None and found.scale is not None and len(found.scale):
            return float(found.scale[0])
    return 0.0


def labels_inside(content: bytes) -> tuple[str, ...] | None:
    """Return the labels in the zip archive behind a .tflite file, where mobile clients look; None if it has none."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return split_labels(archive.read(LABELS).decode())
    except (zipfile.BadZipFile, KeyError):
        return None


def _web_pages() -> dict[str, Page]:
    folder = _web_folder()
    names = [*_WEB, *sorted(path.name for path in folder.glob("*.js"))]
    pages = {f"/{name}": _page(folder / name) for name in names}
    return pages | {"/": pages["/index.html"]}


def _runtime_pages() -> dict[str, Page]:
    packages = install(_web_folder()) / "@litertjs"
    wasm = [packages / "core" / "wasm" / f"{name}{suffix}" for name in _RUNTIMES for suffix in (".js", ".wasm")]
    pages = {f"/runtime/wasm/{path.name}": _page(path) for path in wasm}
    # Browsers do not know bare names, and the policy allows no inline import map that would explain them.
    core = (packages / "core" / "dist" / "index.js").read_bytes().replace(_BARE_IMPORT, _OWN_IMPORT)
    pages["/runtime/litert.js"] = Page(core, _KINDS[".js"])
    pages["/runtime/wasm-utils.js"] = _page(packages / "wasm-utils" / "dist" / "index.js")
    return pages


def _web_folder() -> Path:
    return Path(str(resources.files("pipeline"))) / "export" / "web"


def _page(path: Path | zipfile.Path) -> Page:
    return Page(path, _KINDS[Path(path.name).suffix])
