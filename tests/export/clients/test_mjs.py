"""The JavaScript client in Node, beside a stand-in for LiteRT.js that loads once, as the real one does."""

import json
import subprocess
from pathlib import Path

import pytest

from pipeline.export.handover import write_clients
from pipeline.export.metadata import Facts

pytestmark = pytest.mark.browser
STAND_IN = """
let loading;
export const getGlobalLiteRtPromise = () => loading;
export function loadLiteRt(wasm) {
  if (loading) throw new Error('LiteRT is already loading / loaded.');
  loading = (wasm === 'nowhere' ? Promise.reject(new Error('nothing is there')) : Promise.resolve()).catch(error => {
    loading = undefined;
    throw error;
  });
  return loading;
}
export const loadAndCompile = async address => ({delete: () => console.log(`${address} is closed`)});
export class Tensor {}
"""
VISIT = """
import {open} from './clients/client.mjs';
import {open as openOther} from './other/clients/client.mjs';
const texts = {'bundle/labels.txt': 'a\\nb \\n', 'other/labels.txt': 'a\\n'};
globalThis.fetch = async address => ({ok: address in texts, status: 404, text: async () => texts[address]});
const tell = opened => opened.then(({labels}) => labels, error => error.message);
const failure = await tell(open('bundle', 'nowhere'));
const opened = [open('bundle', 'wasm'), openOther('bundle', 'wasm'), open('other', 'wasm'), open('none', 'wasm')];
console.log(JSON.stringify([failure, ...(await Promise.all(opened.map(tell)))]));
(await open('bundle', 'wasm')).close();
"""


def test_clients_open_beside_each_other_and_after_a_failure_and_say_what_is_wrong(tmp_path: Path):
    for folder in (tmp_path, tmp_path / "other"):
        write_clients(folder, Facts("any", ("a", "b "), (8, 8), 3, masks=False), "stretch", ["float32"])
    package = tmp_path / "node_modules" / "@litertjs" / "core"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"type": "module", "exports": "./index.js"}')
    (package / "index.js").write_text(STAND_IN)
    (tmp_path / "visit.mjs").write_text(VISIT)
    done = subprocess.run(["node", "visit.mjs"], cwd=tmp_path, capture_output=True, text=True, check=False)
    told, closed = done.stdout.splitlines() or [done.stderr, ""]
    wrong = "float32.tflite has 2 classes, but labels.txt has 1 lines", "none/labels.txt cannot be read (404)"
    assert json.loads(told) == ["nothing is there", ["a", "b "], ["a", "b "], *wrong]
    assert closed == "bundle/float32.tflite is closed"
