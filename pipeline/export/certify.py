"""From what an export measured to its certificate, and to what else a bundle holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pipeline.config import Experiment
from pipeline.export.certificate import Certificate, sha256, write_certificate
from pipeline.export.gates import Gate, deterministic_gate, latency_gate, repeatable_gates
from pipeline.export.golden import replay
from pipeline.export.handover import write_card, write_clients
from pipeline.export.interpreter import LiteModel
from pipeline.export.latency import Latency
from pipeline.export.metadata import Facts
from pipeline.runs import Run, environment


@dataclass(frozen=True)
class Evidence:
    """What the gates of an export rest on.

    Args:
        layers: of `check_layers`.
        results: of `tabulate`.
        rebuilt: the SHA-256 of each variant, made a second time.
    """

    facts: Facts
    parameters: int
    paths: Mapping[str, Path]
    layers: pd.DataFrame
    results: pd.DataFrame
    latency: Mapping[tuple[Path, int], Latency]
    rebuilt: Mapping[str, str]


def certify(run: Run, experiment: Experiment, evidence: Evidence) -> Certificate:
    """Put every file of a run's export folder through the gates; write card, clients, and at last certificate.json."""
    found = environment()
    command = found.pop("command")
    [measure] = evidence.results["measure"].unique()
    about = {
        "command": command,
        "environment": found,
        "model": {"name": experiment.model.name, "sha256": sha256(run.model_path.read_bytes())},
        "task": {"name": experiment.task.name, "options": experiment.task.options},
        "measure": measure,
        "margin": experiment.export.margin,
    }
    answered = replay(run.export_dir)
    gates = {variant: _gates(variant, evidence, answered[variant], about["margin"]) for variant in evidence.paths}
    verdicts = Certificate(gates, about, {}).variants()
    models = {variant: LiteModel.open(path) for variant, path in evidence.paths.items()}
    ports = {variant: (model.input, model.output) for variant, model in models.items()}
    write_card(
        run.export_dir, experiment, evidence.parameters, evidence.facts, evidence.results, ports, verdicts, command
    )
    write_clients(run.export_dir, evidence.facts, experiment.data.resize, list(evidence.paths))
    return write_certificate(run.export_dir, gates, about)


def _gates(variant: str, evidence: Evidence, difference: float, margin: float) -> list[Gate]:
    path = evidence.paths[variant]
    content = path.read_bytes()
    [row] = evidence.results[evidence.results["variant"] == variant].to_dict("records")
    return [
        *repeatable_gates(
            variant, content, evidence.facts, layers=evidence.layers, row=row, margin=margin, difference=difference
        ),
        latency_gate(len(content), [timing for (timed, _), timing in evidence.latency.items() if timed == path]),
        deterministic_gate(sha256(content), evidence.rebuilt[variant]),
    ]
