"""Commands that turn a run into files, and look at the files."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.budget import Budget
from pipeline.cli.app import Json, Overrides, RunFolder, app, certified, start_tensorflow
from pipeline.errors import UserError
from pipeline.quiet import quiet
from pipeline.runs import Run, beside
from pipeline.terminal import print_table, say


@app.command()
def export(
    run: RunFolder = Path("runs/digits"),
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As in export.margin=1")
    ] = None,
    as_json: Json = False,
) -> None:
    """Export .tflite files and compare each with the Keras model: answers, size, speed."""
    start_tensorflow()
    from pipeline.export.export import export_run

    result = export_run(run, overrides or ())
    print_table(result.results if as_json else result.table(), as_json)
    say(result.verdict)
    say(f"report: {result.report_path}")
    certified(result)


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A run's export folder, the run, or its zip.")],
    as_json: Json = False,
) -> None:
    """Check an exported bundle again, from what lies in it alone."""
    start_tensorflow()
    from pipeline.export.verify import to_table
    from pipeline.export.verify import verify as verify_bundle

    checks = verify_bundle(bundle)
    print_table(to_table(checks), as_json)
    wrong = [f"{one.of}: {one.name}: {one.found}" for one in checks if not one.holds]
    if wrong:
        raise UserError(f"{bundle} is not what its certificate says: {'; '.join(wrong)}")
    say(f"{bundle} is what its certificate says: {len(checks)} checks; {checks[0].found}")


@app.command()
def bundle(
    run: RunFolder = Path("runs/digits"),
    out: Annotated[Path | None, typer.Option(help="Where to write it; RUN.zip if not given.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
) -> None:
    """Pack a run's exported files into one zip for whoever builds the app."""
    start_tensorflow()
    from pipeline.export.bundle import pack

    written = pack(Run.open(run), out, force=force)
    say(f"bundle: {written}, {written.stat().st_size:,} bytes; check it with: pipeline verify {written}")


@app.command()
def compress(
    run: RunFolder = Path("runs/digits"),
    overrides: Overrides = None,
    recipe: Annotated[
        str | None, typer.Option(help="A name (pipeline list compressions), a YAML file or a compressed run.")
    ] = None,
    channels: Annotated[float | None, typer.Option(help="Take this part of the channels out, 0 to 1.")] = None,
    sparsity: Annotated[float | None, typer.Option(help="Make this part of the weights zero, 0 to 1.")] = None,
    clusters: Annotated[int | None, typer.Option(help="Let each kernel have this many distinct weights.")] = None,
    qat: Annotated[bool, typer.Option("--qat", help="Train with the rounding of the int8 file.")] = False,
    equalise: Annotated[bool, typer.Option("--equalise", help="Balance the ranges of neighbouring layers.")] = False,
    distill: Annotated[bool, typer.Option("--distill", help="Learn from the answers of RUN.")] = False,
    budget: Annotated[str | None, typer.Option(help='As in "size<60kB, latency<0.4ms, drop<0.5pp".')] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where to write it; RUN-<recipe>, RUN-budget or RUN-compressed if not given.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Delete the run that is there and start over.")] = False,
    as_json: Json = False,
) -> None:
    """Make a smaller, faster run from a run, then evaluate, export and compare it."""
    stages = {
        "channels.ratio": channels,
        "sparsity.target": sparsity,
        "clusters.count": clusters,
        "qat.bits": 8 if qat else None,
        "equalise": "true" if equalise else None,
        "distill.weight": 0.9 if distill else None,
    }
    flags = [f"compress.{key}={value}" for key, value in stages.items() if value is not None]
    changes, limits = [*flags, *(overrides or [])], Budget.parse(budget) if budget else None
    base = Run.open(run)
    out = out or beside(run, Path(recipe).stem if recipe else "budget" if budget else "compressed")
    # Wrong requests end here, before TensorFlow starts.
    base.experiment.compressed(run, recipe or ("small" if budget else None), changes)
    start_tensorflow()
    from pipeline.export.compress.comparison import describe, shorten
    from pipeline.export.compress.compress import compress as compress_into

    result = compress_into(base, out, recipe=recipe, overrides=changes, budget=limits, force=force)
    print_table(result.compression if as_json else shorten(result.compression), as_json)
    say(describe(result.compression))
    say(f"report: {result.report_path}")
    certified(result)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(metavar="RUN_OR_TFLITE", help="A run folder or an exported .tflite.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    as_json: Json = False,
) -> None:
    """Say what is in images, with a run's Keras model or an exported file."""
    start_tensorflow()
    import pandas as pd

    from pipeline.export.predict import predict as predict_images
    from pipeline.export.predict import to_table

    found = predict_images(model, images)
    print_table(pd.DataFrame(found) if as_json else to_table(found), as_json)


@app.command()
def demo(
    source: Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="A run, its export folder, or a zip of it.")],
    port: Annotated[int, typer.Option(help="On this machine; 0 takes a free one.")] = 8765,
    variant: Annotated[str | None, typer.Option(help="Which file answers first.")] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the browser.")] = False,
) -> None:
    """Try the exported files in the browser: pictures, camera, all variants side by side."""
    with quiet():
        import ai_edge_litert.interpreter  # noqa: F401
    from pipeline.export.demo import demo as serve

    serve(source, port=port, variant=variant, show=not no_open)
