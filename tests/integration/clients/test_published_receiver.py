"""The receiver that the documentation shows in Python."""

from __future__ import annotations

import base64
import http.client
import http.server
import re
import textwrap
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from standardwebhooks import Webhook

ROOT = Path(__file__).parents[3]
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
BODY = '{"type":"course.updated","data":{"course_id":"c1","changed":["provider"]}}'


def published() -> str:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    blocks = [
        textwrap.dedent(block)
        for page in pages
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        if "class Receiver(BaseHTTPRequestHandler)" in block
    ]
    assert len(blocks) == 1
    return blocks[0]


@pytest.fixture
def port(monkeypatch):
    """Where the receiver listens."""
    servers = []

    class Server(http.server.HTTPServer):
        def __init__(self, _address, handler):
            super().__init__(("127.0.0.1", 0), handler)
            servers.append(self)

        def serve_forever(self, poll_interval=0.01):
            threading.Thread(target=super().serve_forever, args=(poll_interval,)).start()

    monkeypatch.setattr(http.server, "HTTPServer", Server)
    exec(published().replace("whsec_...", SECRET), {"__name__": "receiver"})
    (server,) = servers
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("signed", "status"), [(BODY, 204), ("another body", 400)])
def test_it_accepts_what_is_signed_and_refuses_a_forgery_with_400(port, signed, status, capsys):
    at = datetime.now(UTC)
    headers = {
        "webhook-id": "evt_1",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": Webhook(SECRET).sign("evt_1", at, signed),
    }
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("POST", "/", body=BODY, headers=headers)
    assert connection.getresponse().status == status
    connection.close()
    assert ("course.updated c1 ['provider']" in capsys.readouterr().out) is (status == 204)
