"""Nothing imports upward, and rooms of one floor do not know each other."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pipeline"
RANKS = {
    "errors": 0,
    "quiet": 0,
    "registry": 0,
    "budget": 0,
    "sections": 0,
    "config": 0,
    "ops": 1,
    "runs": 1,
    "data": 2,
    "models": 2,
    "tasks": 2,
    "training": 3,
    "evaluation": 3,
    "explain": 4,
    "export": 5,
    "listing": 5,
    "studies": 6,
    "terminal": 0,
    "cli": 7,
    "__main__": 8,
}
# Rooms whose files may know each other: the ground floor, and a room's own.
GROUND = {"errors", "registry", "budget", "sections", "config"}
KERAS_ONLY = ("models", "tasks", "ops")


def modules() -> list[Path]:
    found = sorted(PACKAGE.rglob("*.py"))
    assert len(found) > 30
    return [path for path in found if path != PACKAGE / "__init__.py"]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Return every module that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_upward_or_sideways(path: Path):
    own = room(path)
    others = {name.split(".")[1] for name in imported(path) if name.startswith("pipeline.")}
    for other in others - {own}:
        assert other in RANKS, f"{other} has no rank"
        allowed = RANKS[other] < RANKS[own] or {own, other} <= GROUND
        assert allowed, f"{own} (rank {RANKS[own]}) imports {other} (rank {RANKS[other]})"


@pytest.mark.parametrize("name", KERAS_ONLY)
def test_models_tasks_and_ops_do_not_know_tensorflow(name: str):
    files = [path for path in modules() if room(path) == name]
    assert files
    for path in files:
        assert not {n for n in imported(path) if n.split(".")[0] == "tensorflow"}, f"{path} imports tensorflow"


@pytest.mark.parametrize("name", ["data", "models", "tasks", "ops"])
def test_lower_rooms_never_see_an_experiment(name: str):
    for path in modules():
        if room(path) == name:
            assert "pipeline.config" not in imported(path), f"{path} imports the config"


def test_command_line_modules_do_not_import_tensorflow():
    code = "import sys, pipeline, pipeline.cli; sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
