"""A bundle is what its certificate says, and any change to it is found, also where the digests are mended."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from pipeline.cli.app import certified
from pipeline.errors import UserError
from pipeline.export.certificate import FILE, Certificate, sha256, write_certificate
from pipeline.export.gates import (
    FAIL,
    NOT_SHOWN,
    PASS,
    Gate,
    deterministic_gate,
    golden_gate,
    metadata_gate,
    operators_gate,
    parity_gate,
    score_gate,
    signature_gate,
    worst,
)
from pipeline.export.golden import differences, replay, write_golden
from pipeline.export.interpreter import LiteModel
from pipeline.export.metadata import Facts, describe
from pipeline.export.verify import to_table, verify

GATES = ["operators", "signature", "metadata", "parity", "score", "golden", "latency", "deterministic"]


@pytest.fixture
def bundle(exported, tmp_path) -> Path:
    """Return a copy of an export folder, to be broken."""
    return Path(shutil.copytree(exported.run.export_dir, tmp_path / "bundle"))


def mend(folder: Path) -> None:
    """Write the certificate anew over what lies there, as a forger would."""
    old = Certificate.read(folder)
    write_certificate(folder, old.gates, old.about)


def wrong(folder: Path) -> list[tuple[str, str]]:
    return [(one.of, one.name) for one in verify(folder) if not one.holds]


def test_what_python_compiles_of_its_client_is_no_change(bundle):
    compiled = bundle / "clients" / "__pycache__" / "client.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"")
    assert wrong(bundle) == []
    (bundle / "__pycache__").mkdir()
    (bundle / "__pycache__" / "other.pyc").write_bytes(b"")
    assert wrong(bundle) == [("bundle", "files")]


def test_every_file_has_every_gate(exported):
    certificate = exported.certificate
    assert list(certificate.gates) == exported.run.experiment.export.variants
    assert all([gate.name for gate in gates] == GATES for gates in certificate.gates.values())
    verdicts = {gate.name: gate.verdict for gate in certificate.gates["float32"]}
    assert verdicts == dict.fromkeys(GATES, PASS), certificate.failures()
    assert certificate == Certificate.read(exported.run.export_dir)


def test_the_certificate_is_a_documented_file(exported):
    values = json.loads((exported.run.export_dir / FILE).read_text(encoding="utf-8"))
    about = ["command", "environment", "model", "task", "measure", "margin"]
    assert list(values) == ["format", "verdict", *about, "variants", "files", "digest"]
    assert values["format"] == 1
    assert set(values["files"]) == {
        path.relative_to(exported.run.export_dir).as_posix()
        for path in exported.run.export_dir.rglob("*")
        if path.is_file() and path.name != FILE
    }
    assert "instructions" in values["environment"]


def test_a_bundle_holds_what_it_says(bundle, exported):
    checks = verify(bundle)
    assert all(one.holds for one in checks), to_table(checks)
    assert len(checks) == 1 + 6 * 6
    assert verify(exported.run.path) == checks  # a run's own


@pytest.mark.parametrize("name", ["int8.tflite", "labels.txt", "golden.npz", "golden.json", "results.csv"])
def test_one_flipped_bit_is_found(bundle, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    [check] = verify(bundle)
    assert check.found == f"{name} was changed"


def test_a_flipped_bit_of_the_certificate_is_found_anywhere(bundle):
    path = bundle / FILE
    whole = path.read_bytes()
    for place in np.random.default_rng(0).integers(0, len(whole), 60):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"was changed|is damaged|has the format|has no"):
            verify(bundle)


def test_truncated_missing_and_foreign_files_are_named(bundle):
    whole = (bundle / "uint8.tflite").read_bytes()
    (bundle / "uint8.tflite").write_bytes(whole[: len(whole) // 2])
    (bundle / "golden.npz").unlink()
    (bundle / "extra.txt").touch()
    [check] = verify(bundle)
    assert check.found == "uint8.tflite was changed; golden.npz is missing; extra.txt is not part of it"


def test_swapped_labels_are_found_though_the_digests_are_mended(bundle):
    labels = (bundle / "labels.txt").read_text().splitlines()
    (bundle / "labels.txt").write_text("\n".join([labels[1], labels[0], *labels[2:]]) + "\n")
    mend(bundle)
    assert {name for _, name in wrong(bundle)} == {"metadata"}


def test_another_size_or_colour_is_found_though_the_digests_are_mended(bundle):
    path = bundle / "preprocess.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"channels": 3}))
    mend(bundle)
    assert {name for _, name in wrong(bundle)} == {"metadata", "signature"}


def test_other_weights_are_found_though_the_digests_are_mended(bundle, exported, float_file):
    facts = Facts.read((bundle / "float32.tflite").read_bytes())
    (bundle / "float32.tflite").write_bytes(describe(float_file, facts))  # another network
    mend(bundle)
    assert {("float32", "golden"), ("float32", "signature")} <= set(wrong(bundle))


def test_better_answers_are_found_though_the_digests_are_mended(bundle):
    with np.load(bundle / "answers.npz") as terms:
        arrays = dict(terms)
    arrays["int8"][:, 0] = 1  # all right
    np.savez_compressed(bundle / "answers.npz", **arrays)
    mend(bundle)
    assert wrong(bundle) == [("int8", "score")]


def test_what_is_no_bundle_is_named(tmp_path, user_error):
    with user_error(f"{tmp_path} has no certificate.json", "pipeline export"):
        verify(tmp_path)
    (tmp_path / FILE).write_text('{"format": 2}')
    with user_error("has the format 2", "update"):
        verify(tmp_path)
    (tmp_path / FILE).write_text("[]")
    with user_error("damaged"):
        verify(tmp_path)


ABOUT = {"command": "", "environment": {}, "model": {}, "task": {}, "measure": "accuracy", "margin": 0.5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: values.update(verdict="certified"), "was changed"),
        (lambda values: values["variants"]["a"].update(verdict="certified"), "was changed"),
        (lambda values: values["variants"]["a"].update(file="b.tflite"), "was changed"),
        (lambda values: values.update(note="trust me"), "was changed"),
        (lambda values: values["variants"]["a"]["gates"][0].update(verdict="fine"), "damaged"),
        (lambda values: values.update(variants=[]), "damaged"),
        (lambda values: values.update(files=["a.tflite"]), "damaged"),
    ],
    ids=["verdict", "verdict of a file", "file", "new key", "new verdict", "variants", "files"],
)
def test_what_does_not_follow_from_the_gates_is_found_though_the_digest_is_mended(tmp_path, change, said, user_error):
    write_certificate(tmp_path, {"a": [Gate("golden", "far", "near", FAIL)]}, ABOUT)
    values = json.loads((tmp_path / FILE).read_text())
    del values["digest"]
    change(values)
    digest = sha256((json.dumps(values, indent=1) + "\n").encode())
    (tmp_path / FILE).write_text(json.dumps(values | {"digest": digest}, indent=1) + "\n")
    with user_error(said):
        Certificate.read(tmp_path)


def test_deep_nesting_is_damage(tmp_path, user_error):
    (tmp_path / FILE).write_text('{"format": 1, "files": ' + "[" * 200_000)
    with user_error("damaged"):
        Certificate.read(tmp_path)


def test_wider_bounds_are_found_though_the_digests_are_mended(bundle):
    old = Certificate.read(bundle)
    wider = [replace(gate, bound="≥ -9 dB") if gate.name == "parity" else gate for gate in old.gates["int8"]]
    write_certificate(bundle, {**old.gates, "int8": wider}, old.about)
    assert wrong(bundle) == [("int8", "parity")]
    write_certificate(bundle, old.gates, {**old.about, "margin": 50})
    assert {name for _, name in wrong(bundle)} == {"score"}


def test_every_file_must_have_gates_though_the_digests_are_mended(bundle):
    old = Certificate.read(bundle)
    write_certificate(bundle, {name: gates for name, gates in old.gates.items() if name != "int8"}, old.about)
    [check] = verify(bundle)
    assert (check.found, check.holds) == ("int8.tflite has no gates", False)
    for path in bundle.glob("*.tflite"):
        path.unlink()
    write_certificate(bundle, {}, old.about)
    [check] = verify(bundle)
    assert (check.found, check.holds) == ("no .tflite file is certified", False)


def test_an_honest_failure_is_named(bundle):
    old = Certificate.read(bundle)
    failed = [replace(gate, verdict=FAIL) if gate.name == "deterministic" else gate for gate in old.gates["int8"]]
    certificate = write_certificate(bundle, {**old.gates, "int8": failed}, old.about)
    first, *rest = verify(bundle)
    assert first.found.endswith(certificate.summary())
    assert "failed; " in first.found
    assert all(one.holds for one in (first, *rest))


def test_what_cannot_be_read_is_a_failed_check(bundle):
    for name, content in {
        "golden.json": b"[" * 200_000,
        "golden.npz": b"",
        "parity.csv": b"",
        "labels.txt": b"\xff",
    }.items():
        whole = (bundle / name).read_bytes()
        for broken in (content, None):
            (bundle / name).unlink() if broken is None else (bundle / name).write_bytes(broken)
            mend(bundle)
            assert wrong(bundle) == [("bundle", "contents")], name
        (bundle / name).write_bytes(whole)


def test_an_odd_variant_fails_alone(bundle):
    (bundle / "int8.tflite").write_bytes(b"not a model")
    old = Certificate.read(bundle)
    write_certificate(bundle, {**old.gates, "uint8": old.gates["uint8"][1:]}, old.about)
    assert wrong(bundle) == [("int8", "gates"), ("uint8", "operators")]
    write_certificate(bundle, old.gates, {**old.about, "measure": "beauty"})
    assert set(wrong(bundle)) == {(variant, "gates") for variant in old.gates}


def test_answers_that_cannot_be_compared_do_not_hide_the_others(variant_files, images, tmp_path):
    for name in ("float32", "int8"):
        shutil.copy(variant_files[name], tmp_path)
    right = LiteModel.open(variant_files["float32"]).predict(images[:2])
    write_golden(tmp_path, images[:2], np.array(["a", "b"]), right, {"int8": right[:, :3], "float32": right})
    assert differences(tmp_path) == {"float32": 0.0}


def test_a_file_that_does_not_run_is_found_in_its_own_process(bundle):
    (bundle / "int8.tflite").write_bytes(b"not a model")
    found = replay(bundle)
    assert np.isnan(found.pop("int8"))
    assert found == {name: 0.0 for name in found}, "the same machine gives the same answers"
    assert set(differences(bundle)) == set(found)


FACTS = Facts("small", ("a", "b", "c"), (16, 16), 3, masks=False)


def test_gates_fail_on_what_they_are_for(float_file):
    content = describe(float_file, FACTS)
    assert operators_gate(content).verdict == PASS
    assert metadata_gate(content, FACTS).verdict == PASS
    swapped = Facts("small", ("b", "a", "c"), (16, 16), 3, masks=False)
    assert metadata_gate(content, swapped) == Gate("metadata", "labels differ", "labels.txt and preprocess.json", FAIL)
    assert metadata_gate(float_file, FACTS).verdict == FAIL
    assert signature_gate(content, Facts("small", ("a", "b"), (32, 32), 3, masks=False)).verdict == FAIL
    assert signature_gate(b"no model", FACTS).verdict == FAIL
    assert golden_gate("float32", 1e-6).verdict == golden_gate("int8", 1 / 256).verdict == PASS
    assert golden_gate("float32", 1e-5).verdict == golden_gate("int8", float("nan")).verdict == FAIL
    assert deterministic_gate("a", "a").verdict == PASS
    assert deterministic_gate("a", "b").verdict == FAIL


def test_parity_is_tight_for_floats_and_not_shown_for_noisy_integers():
    layers = pd.DataFrame({"layer": ["a", "b"] * 2, "variant": ["float32"] * 2 + ["int8"] * 2})
    layers["sqnr_db"] = [70.0, 50.0, 30.0, -3.0]
    assert parity_gate(layers, "float32").verdict == FAIL
    assert "diverges from b on" in parity_gate(layers, "float32").figure
    assert parity_gate(layers, "int8").verdict == NOT_SHOWN


def test_an_open_score_says_how_many_images_are_needed():
    row = {"measure": "accuracy", "score": 0.9, "low": 0.8, "high": 0.95, "n": 100, "images_needed": 1234.0}
    row |= {"difference": -0.1, "difference_low": -1.0, "difference_high": 0.8, "verdict": "not shown"}
    gate = score_gate(row, 0.5)
    assert (gate.verdict, "1,234 images would be needed" in gate.figure) == (NOT_SHOWN, True)
    assert score_gate(row | {"verdict": "worse"}, 0.5).verdict == FAIL


def test_the_whole_is_as_good_as_its_worst_part():
    assert worst([]) == worst([PASS, PASS]) == PASS
    assert worst([PASS, NOT_SHOWN]) == NOT_SHOWN
    assert worst([FAIL, NOT_SHOWN, PASS]) == FAIL
    gates = {"a": [Gate("score", "f", "b", NOT_SHOWN)], "b": [Gate("golden", "far", "near", FAIL)]}
    certificate = Certificate(gates, {}, {})
    assert (certificate.verdict, certificate.variants()) == ("failed", {"a": "not shown", "b": "failed"})
    assert certificate.failures() == ["b fails the gate 'golden': far (near)"]
    assert certificate.summary() == "failed; score not shown for a; golden fail for b"


def test_a_failed_gate_fails_the_command(user_error):
    failed = SimpleNamespace(certificate=Certificate({"a": [Gate("golden", "far", "near", FAIL)]}, {}, {}))
    with user_error("not certified: a fails the gate 'golden': far (near)"):
        certified(failed)
