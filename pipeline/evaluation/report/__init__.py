"""The report: one self-contained HTML page from whatever a run folder holds."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.evaluation.report.sections import contents
from pipeline.runs import Run, write_atomically

__all__ = ["write_report"]


def write_report(run: Run) -> Path:
    """Write report.html anew and return its path.

    The page needs no network: style and pictures are inside it, and its own policy forbids to load anything. All
    text that comes from data (class names, file names, captions) is escaped.
    """
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_atomically(run.report_path, pages.get_template("template.html").render(contents(run)))
    return run.report_path
