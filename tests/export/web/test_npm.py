"""Pinned Node packages are installed once, by their lock file, or the user is told why not."""

import json
from pathlib import Path

import pytest
from driving import HERE

from pipeline.export.npm import LOCK, MANIFEST, install

FOLDERS = [HERE, HERE / "tasks_vision", HERE.parents[2] / "pipeline" / "export" / "web"]


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Return a function that puts a shell script in npm's place, with a cache of its own; and the cache."""
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))

    def write(script: str) -> Path:
        path = tmp_path / "npm"
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        return tmp_path / "cache"

    return write


def test_packages_are_installed_once(npm, tmp_path):
    npm("mkdir node_modules && cp package-lock.json node_modules")
    found = [install(FOLDERS[0]) for _ in range(2)]
    assert found[0] == found[1]
    assert (found[0] / LOCK).read_bytes() == (FOLDERS[0] / LOCK).read_bytes()
    [call] = (tmp_path / "calls").read_text().splitlines()
    assert call.startswith("ci --ignore-scripts")


def test_failure_is_one_sentence_and_leaves_nothing(npm, user_error):
    cache = npm("echo 'npm error code E404' >&2; exit 1")
    with user_error("npm could not fetch playwright-core (E404)"):
        install(FOLDERS[0])
    assert not list(cache.iterdir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: f"{folder.parent.name}/{folder.name}")
def test_lock_file_pins_what_the_manifest_names(folder):
    manifest, lock = (json.loads((folder / name).read_text()) for name in (MANIFEST, LOCK))
    for name, version in manifest["dependencies"].items():
        assert lock["packages"][f"node_modules/{name}"]["version"] == version
    for name, package in lock["packages"].items():
        if name:
            assert package["resolved"].startswith("https://registry.npmjs.org/")
            assert package["integrity"].startswith("sha512-")
