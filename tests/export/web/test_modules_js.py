"""What the page's modules do where no page is needed, in Node."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

WEB = Path(__file__).parents[3] / "pipeline" / "export" / "web"
pytestmark = pytest.mark.browser
CAMERA = """
let asked = 0;
const video = {srcObject: null, play: async () => {}};
const getUserMedia = async () => (asked += 1, {getTracks: () => []});
Object.defineProperty(globalThis, 'navigator', {value: {mediaDevices: {getUserMedia}}});
const camera = new Camera(video);
const started = await Promise.all([camera.start(), camera.start()]);
camera.stop();
found = [...started, await camera.start(), asked];
"""


def in_node(module: str, names: str, code: str) -> Any:
    """Return what a script that imports names from one of the page's modules leaves in `found`."""
    script = f"import {{ {names} }} from {json.dumps((WEB / module).as_uri())};\nlet found;\n{code}\n"
    command = ["node", "--input-type=module", "-e", script + "console.log(JSON.stringify(found));"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("answers", "largest"),
    [("[0.5, 0.25]", "0.25"), ("[NaN, 0.5]", "NaN"), ("[0, NaN]", "NaN"), ("[0]", "Infinity")],
)
def test_the_largest_difference_keeps_what_is_no_number(answers, largest):
    code = f"found = String(largestDifference({answers}, [0.5, 0.5]));"
    assert in_node("golden.js", "largestDifference", code) == largest


def test_a_double_click_starts_one_camera():
    assert in_node("picture.js", "Camera", CAMERA) == [True, False, True, 2]
