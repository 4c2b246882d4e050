"""What all commands share: the application, their arguments, and TensorFlow's quiet start."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.config import find_config
from pipeline.errors import UserError
from pipeline.quiet import quiet
from pipeline.terminal import say

if TYPE_CHECKING:
    from pipeline.export.export import Export

app = typer.Typer(
    name="pipeline",
    help="From labelled images to a vision model that is proven to work on a phone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[str, typer.Argument(metavar="CONFIG", help="A preset's name, a YAML file, or a run folder.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="As in train.epochs=3")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def start_tensorflow() -> None:
    """Import TensorFlow without the lines that its C++ libraries print before they have read any log level."""
    with quiet():
        import ai_edge_litert.interpreter  # noqa: F401
        import tensorflow  # noqa: F401


def certified(result: "Export") -> None:
    """Say what the certificate says, and fail the job where a file fails a gate."""
    certificate = result.certificate
    failures = certificate.failures()
    if failures:
        raise UserError(f"not certified: {'; '.join(failures)}")
    say(f"certificate: {certificate.summary()}")


def split_overrides(config: str, overrides: list[str] | None) -> tuple[str, list[str]]:
    """Let `pipeline train train.epochs=3` mean the default preset with an override."""
    if "=" in config and not Path(config).exists():
        return "digits", [config, *(overrides or [])]
    return config, overrides or []


def config_name(config: str) -> str:
    """Return what a run of this preset, file or run folder is called."""
    path = find_config(config)
    return path.resolve().parent.name if path.name == "experiment.yaml" else path.stem
