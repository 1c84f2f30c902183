"""Commands over an API behind TLS, with a certificate of a private authority."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from click.testing import CliRunner

from service.cli import coursewire
from service.commands.api_client import RemoteError
from tests.authority import Authority


class Empty(BaseHTTPRequestHandler):
    """Answers with an empty list."""

    def do_GET(self):
        body = b'{"items": [], "next": null}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def url(authority):
    server = HTTPServer(("127.0.0.1", 0), Empty)
    server.socket = authority.server("127.0.0.1").wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_private_authorities_are_trusted_where_they_are_named(url, authority, monkeypatch):
    monkeypatch.setenv("COURSEWIRE_URL", url)
    monkeypatch.setenv("COURSEWIRE_TOKEN", "t" * 20)
    refused = CliRunner().invoke(coursewire, ["credentials"])
    assert isinstance(refused.exception, RemoteError)
    assert "certificate verify failed" in str(refused.exception)
    monkeypatch.setenv("COURSEWIRE_CA_FILE", str(authority.file))
    listed = CliRunner().invoke(coursewire, ["credentials"])
    assert listed.exit_code == 0, listed.exception
