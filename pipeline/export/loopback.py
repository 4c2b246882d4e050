"""A web server for this machine only, which knows a fixed table of files and nothing of the disk."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTP_PORT
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from pipeline.errors import UserError

ADDRESS = "127.0.0.1"
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; img-src 'self' blob: data:; "
        "style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    # An isolated page has a clock of 5 microseconds; any other one of 100, longer than a small model takes.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Content(Protocol):
    """What can be read whole: a path on disk or inside a zip archive."""

    def read_bytes(self) -> bytes: ...


@dataclass(frozen=True)
class Page:
    """One entry of the table: the bytes, or where they are, and their type."""

    content: Content | bytes
    kind: str

    def read(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.read_bytes()


class Server(ThreadingHTTPServer):
    """Serve `pages` by their exact addresses on 127.0.0.1; port 0 takes a free one."""

    daemon_threads = True

    def __init__(self, pages: Mapping[str, Page], port: int = 0) -> None:
        self.pages = dict(pages)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            raise UserError(f"port {port} cannot be used ({error}); give another --port, or 0 for any") from None

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that hung up, as it does at a reload; print what else went wrong."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "pipeline", ""
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        # A foreign page can make its own name point to this machine; the browser then still sends that name.
        # Browsers leave the protocol's own port out.
        port = "" if self.server.server_port == HTTP_PORT else f":{self.server.server_port}"
        hosts = {f"{name}{port}" for name in (ADDRESS, "localhost")}
        if self.headers.get("Host") not in hosts:
            return self._send(HTTPStatus.FORBIDDEN, b"this server answers to its own name only\n")
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            return self._send(HTTPStatus.NOT_FOUND, b"there is nothing at this address\n")
        try:
            content = page.read()
        except (OSError, KeyError):  # deleted meanwhile
            return self._send(HTTPStatus.GONE, b"the file is gone; start the demo again\n")
        return self._send(HTTPStatus.OK, content, page.kind)

    def _send(self, status: HTTPStatus, content: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the console for the one line that says where the page is."""
