"""The demo's server: this machine only, a fixed table of files, strict headers, its own name."""

import http.client
import json
import re
import signal
import subprocess
import sys
import threading
import urllib.request
import zipfile

import pytest

from pipeline.export import demo, loopback
from pipeline.export.loopback import Page, Server


@pytest.fixture
def ask():
    """Return a function that asks a running server, byte for byte as told."""
    with Server({"/": Page(b"<p>hello", "text/html"), "/secret.txt": Page(b"", "text/plain")}) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def request(path: str, method: str = "GET", host: str | None = None) -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
            connection.putrequest(method, path, skip_host=True)
            connection.putheader("Host", host or f"127.0.0.1:{server.server_port}")
            connection.endheaders()
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            return answer.status, dict(answer.getheaders()), content

        request.port = server.server_port
        yield request
        server.shutdown()
        thread.join()


@pytest.fixture
def bundle(variant_files, tmp_path, monkeypatch):
    """An export folder of two files, and no runtime installed."""
    monkeypatch.setattr(demo, "_runtime_pages", dict)
    folder = tmp_path / "runs" / "mine" / "export"
    folder.mkdir(parents=True)
    for name in ("uint8", "float32"):
        (folder / f"{name}.tflite").write_bytes(variant_files[name].read_bytes())
    (folder / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    (folder / "preprocess.json").write_text("{}")
    (folder / "private.txt").write_text("not in the table")
    return folder


def test_server_listens_on_this_machine_only():
    with Server({}) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_headers_are_strict(ask):
    status, headers, content = ask("/")
    assert (status, content) == (200, b"<p>hello")
    policy = headers["Content-Security-Policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert "script-src 'self' 'wasm-unsafe-eval'" in policy
    assert "connect-src 'self'" in policy
    assert not [part for part in policy if "unsafe-inline" in part or "'unsafe-eval'" in part or "http" in part]
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_head_has_no_body_and_a_query_does_not_matter(ask):
    status, headers, content = ask("/?x=1", "HEAD")
    assert (status, headers["Content-Length"], content) == (200, "8", b"")


@pytest.mark.parametrize(
    "path", ["/nothing", "/../etc/passwd", "/%2e%2e/etc/passwd", "//etc/passwd", "/./", "/secret.txt/", "*", "/\\.."]
)
def test_what_is_not_in_the_table_is_not_there(ask, path):
    status, headers, _ = ask(path)
    assert status == 404
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example"])
def test_another_name_is_refused(ask, host):
    assert ask("/", host=host)[0] == 403


def test_browsers_leave_the_protocol_s_own_port_out(ask, monkeypatch):
    monkeypatch.setattr(loopback, "HTTP_PORT", ask.port)
    assert ask("/", host="127.0.0.1")[0] == ask("/", host="localhost")[0] == 200
    assert ask("/", host="evil.example")[0] == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_sent(ask, method):
    assert ask("/", method)[0] == 501


@pytest.mark.parametrize("error", [BrokenPipeError, ConnectionResetError, ValueError])
def test_a_browser_that_hangs_up_is_no_news(capsys, error):
    with Server({}) as server:
        try:
            raise error
        except error:
            server.handle_error(None, ("127.0.0.1", 1))
    assert (capsys.readouterr().err == "") == issubclass(error, ConnectionError)


@pytest.mark.parametrize("form", ["run", "export", "zip", "nested zip"])
def test_run_folder_and_zip_are_served_alike(bundle, tmp_path, form):
    source = {"run": bundle.parent, "export": bundle}.get(form)
    if source is None:
        source = tmp_path / "mine.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for path in bundle.iterdir():
                archive.write(path, f"mine/{path.name}" if form == "nested zip" else path.name)
    with demo.open_server(source) as server:
        pages = server.pages
    files = {address for address in pages if address.startswith("/bundle/")}
    assert files == {f"/bundle/{n}" for n in ("float32.tflite", "uint8.tflite", "labels.txt", "preprocess.json")}
    assert pages["/bundle/uint8.tflite"].read() == (bundle / "uint8.tflite").read_bytes()
    facts = json.loads(pages["/facts.json"].read())
    assert [variant["name"] for variant in facts["variants"]] == ["float32", "uint8"]
    assert len(facts["colours"]) == 5
    assert facts["title"] == "mine"


def test_every_module_that_the_page_imports_is_served(bundle):
    with demo.open_server(bundle) as server:
        pages = server.pages
    scripts = [page.read().decode() for address, page in pages.items() if address.endswith(".js")]
    assert len(scripts) > 5
    named = {line.rsplit('"', 2)[1] for script in scripts for line in script.splitlines() if line.startswith("import ")}
    assert named - {"/runtime/litert.js"} <= set(pages)


def test_tolerance_follows_how_a_file_computes(variants):
    found = {name: demo.tolerance(content) for name, content in variants.items()}
    assert found["float32"] == found["float16"] == found["weight_int4"] == demo.FLOAT_ANSWER
    assert found["dynamic"] == demo.HYBRID_ANSWER
    assert found["int8"] == found["uint8"] == pytest.approx(1.001 / 256)


def test_wrong_use_is_one_sentence(bundle, tmp_path, user_error):
    with user_error("does not exist"):
        demo.open_server(tmp_path / "nowhere")
    with user_error("no variant 'int9'", "float32, uint8"):
        demo.open_server(bundle, variant="int9")
    with user_error("neither a run folder"):
        demo.open_server(bundle / "labels.txt")
    (bundle / "labels.txt").write_text("a\nb\n")
    with user_error("5 classes", "labels.txt", "has 2"):
        demo.open_server(bundle)
    (bundle / "labels.txt").write_text("a\nb\nc\nd\ne\n")
    with demo.open_server(bundle) as server, user_error("port", "--port"):
        demo.open_server(bundle, port=server.server_port)
    (bundle / "labels.txt").unlink()
    with user_error("no labels.txt"):
        demo.open_server(bundle)
    for path in bundle.glob("*.tflite"):
        path.unlink()
    with user_error("no .tflite files", "pipeline export"):
        demo.open_server(bundle)


@pytest.mark.browser
@pytest.mark.slow
def test_command_serves_until_it_is_interrupted(bundle, node_packages):
    # What a script starts in the background ignores SIGINT, and all that it starts itself inherits that.
    code = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "runpy.run_module('pipeline', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", code, "demo", bundle, "--port", "0", "--no-open"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = re.search(r"http://\S+", process.stderr.readline())[0]
            with urllib.request.urlopen(f"{url}runtime/wasm-utils.js", timeout=10) as answer:
                assert answer.headers["Content-Type"].startswith("text/javascript")
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 130
        finally:
            process.kill()


def test_missing_npm_is_said(bundle, monkeypatch, tmp_path, user_error):
    monkeypatch.undo()
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with user_error("npm is not installed"):
        demo.open_server(bundle)
    assert not list((tmp_path / "cache").iterdir())
