"""The JavaScript client in Node, beside a stand-in for LiteRT.js that loads once, as the real one does."""

import subprocess
from pathlib import Path

import pytest

from pipeline.export.handover import write_clients
from pipeline.export.metadata import Facts

pytestmark = pytest.mark.browser
STAND_IN = """
let loaded = false;
export function loadLiteRt(wasm) {
  if (loaded) throw new Error('LiteRT is already loading / loaded.');
  loaded = wasm !== 'nowhere';
  return loaded ? Promise.resolve() : Promise.reject(new Error('nothing is there'));
}
export const loadAndCompile = async address => address;
export class Tensor {}
"""
VISIT = """
import {open} from './clients/client.mjs';
globalThis.fetch = async () => ({text: async () => 'a\\nb \\n'});
const failure = await open('bundle', 'nowhere').catch(error => error.message);
const models = await Promise.all([open('bundle', 'wasm'), open('bundle', 'wasm')]);
console.log(JSON.stringify([failure, ...models.map(({labels}) => labels)]));
"""


def test_the_client_opens_twice_and_after_a_failure(tmp_path: Path):
    write_clients(tmp_path, Facts("any", ("a", "b "), (8, 8), 3, masks=False), "stretch", ["float32"])
    package = tmp_path / "node_modules" / "@litertjs" / "core"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"type": "module", "exports": "./index.js"}')
    (package / "index.js").write_text(STAND_IN)
    (tmp_path / "visit.mjs").write_text(VISIT)
    done = subprocess.run(["node", "visit.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == '["nothing is there",["a","b "],["a","b "]]\n', done.stderr
