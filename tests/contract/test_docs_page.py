"""The documentation's page in a real browser: it renders, and asks nobody else for anything."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.contract.conftest import Api

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--virtual-time-budget=5000", "--window-size=1400,1000"),
)


def browse(directory: Path, url: str, *options: str) -> str:
    """What the browser prints about a page. It knows no name and no address but this machine's."""
    ran = subprocess.run(
        [
            *(str(CHROMIUM), *FLAGS, f"--user-data-dir={directory / 'profile'}", *options),
            # Whatever else it asks for goes to a port on which nobody listens, and is logged.
            *("--host-resolver-rules=MAP * 127.0.0.1:9, EXCLUDE 127.0.0.1", url),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return ran.stdout


pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="chromium is not installed"
)


def requests(log: Path, page: str) -> set[str]:
    """What a page had the browser ask for, by its log; the browser asks for things of its own."""
    text = log.read_text().rstrip()
    if not text.endswith("}"):  # it was ended while it wrote
        text = text.rstrip(",") + "]}"
    asked = [event.get("params", {}) for event in json.loads(text)["events"]]
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(page))
    return {
        one["url"]
        for one in asked
        if one.get("url", "").startswith(("http", "ws"))
        and (one["url"] == page or one.get("initiator") == origin)
    }


def test_the_page_renders_with_no_request_to_another_host(api: Api, tmp_path: Path) -> None:
    log, shot = tmp_path / "net.json", tmp_path / "page.png"
    url = f"{api.url}/schema"
    page = browse(tmp_path, url, "--dump-dom", f"--log-net-log={log}", f"--screenshot={shot}")
    assert "<h1>Coursewire API</h1>" in page
    assert page.count("<details") > 50
    assert shot.read_bytes().startswith(b"\x89PNG")
    assert requests(log, url) == {url}


def test_a_link_opens_what_it_leads_to(api: Api, tmp_path: Path) -> None:
    page = browse(tmp_path, f"{api.url}/schema#on-createSubscription", "--dump-dom")
    (opened,) = re.findall(r"<details[^>]*open.*?</details>", page, re.DOTALL)
    assert "rate_per_second" in opened


def test_a_request_to_another_host_would_be_noticed(tmp_path: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<h1>a</h1><img src='http://elsewhere.example/a.png'>")

        def log_message(self, *_given) -> None:
            pass

    log = tmp_path / "net.json"
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/page"
        browse(tmp_path, url, "--dump-dom", f"--log-net-log={log}")
        server.shutdown()
    assert "http://elsewhere.example/a.png" in requests(log, url)
