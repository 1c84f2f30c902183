"""The reference page in a real browser: it shows all, sends requests, and asks nobody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest

from tests.contract.browser import Tab, browser
from tests.contract.conftest import TOKEN, Api

pytestmark = pytest.mark.slow

PREFIX = "/behind/a/proxy"
UNDER_A_PREFIX = pytest.mark.parametrize(
    "api", [{"COURSEWIRE_ROOT_PATH": PREFIX}], indirect=True, ids=["prefix"]
)
AUTHORIZE = """
    (await find(".btn.authorize")).click();
    const input = await find(".auth-container input");
    const type = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, "value").set;
    type.call(input, "TOKEN");
    input.dispatchEvent(new Event("input", { bubbles: true }));
    (await find(".auth-btn-wrapper .authorize")).click();
    (await find(".btn-done")).click();
"""
SEND = """
    const operation = "#operations-System-showStatus";
    (await find(operation + " .opblock-summary-control")).click();
    (await find(operation + " .try-out__btn")).click();
    (await find(operation + " .execute")).click();
    const answer = operation + " .live-responses-table tbody ";
    return [
      (await find(answer + ".response-col_status")).innerText,
      (await find(answer + ".highlight-code")).innerText,
    ];
"""


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    with browser(tmp_path) as tab:
        yield tab


@pytest.mark.parametrize("width", [1400, 420])
def test_the_page_shows_every_operation(api: Api, tab: Tab, width: int) -> None:
    document = httpx.get(f"{api.url}/schema/openapi.json").json()
    items = [*document["paths"].values(), *document["webhooks"].values()]
    expected = {
        operation["operationId"]
        for item in items
        for operation in item.values()
        if "operationId" in operation
    }
    tab.open(f"{api.url}/schema", width=width)
    ids = tab.run(
        "await find('.opblock'); "
        "return [...document.querySelectorAll('.opblock')].map((one) => one.id)"
    )
    shown = {one.rpartition("-")[2].replace("\\", "") for one in ids}  # "." is escaped there
    assert shown == expected
    overflow = "return document.documentElement.scrollWidth - window.innerWidth"
    assert tab.run(overflow) <= 0
    assert tab.picture().startswith(b"\x89PNG")
    assert tab.complaints == []


@UNDER_A_PREFIX
def test_a_request_is_sent_with_a_token_and_nothing_to_another_host(api: Api, tab: Tab) -> None:
    tab.open(f"{api.url}{PREFIX}/schema")
    assert tab.run(SEND)[0] == "401"
    tab.open("about:blank")
    tab.open(f"{api.url}{PREFIX}/schema")
    status, body = tab.run(AUTHORIZE.replace("TOKEN", TOKEN) + SEND)
    assert (status, '"redis"' in body) == ("200", True)
    asked = {url for url in tab.requested if not url.startswith(("data:", "about:"))}
    assert f"{api.url}{PREFIX}/v1/status" in asked
    assert all(url.startswith(f"{api.url}{PREFIX}/") for url in asked), asked
    assert [one for one in tab.complaints if "401" not in one] == []


def test_a_link_opens_the_operation_it_leads_to(api: Api, tab: Tab) -> None:
    tab.open(f"{api.url}/schema#/Subscriptions/createSubscription")
    body = "#operations-Subscriptions-createSubscription .opblock-section-request-body"
    assert "Request body" in tab.run(f"return (await find('{body}')).innerText")


def test_a_request_to_another_host_would_be_noticed(tab: Tab) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<h1>a</h1><img src='http://elsewhere.example/a.png'>")

        def log_message(self, *_given) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        tab.open(f"http://127.0.0.1:{server.server_port}/page")
        server.shutdown()
    assert "http://elsewhere.example/a.png" in tab.requested
