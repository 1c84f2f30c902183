"""Commands over an API that answers as it is told."""

from __future__ import annotations

import json

import httpx
import pytest
from click.testing import CliRunner

from service.cli import coursewire
from service.commands import options


class Answering:
    """Answers requests in turn, the last answer again and again, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response] = []
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def says(self, *documents: object, **options) -> None:
        self.answers = [httpx.Response(200, json=one, **options) for one in documents]

    @property
    def sent(self) -> object:
        """The body of the last request."""
        return json.loads(self.asked[-1].content)


@pytest.fixture
def api() -> Answering:
    return Answering()


@pytest.fixture
def run(api, monkeypatch, tmp_path):
    """Runs a command; `terminal` says that its output, and who is asked, is at one."""
    monkeypatch.setenv("COURSEWIRE_ADMIN_TOKEN", "t" * 20)
    monkeypatch.setenv("COURSEWIRE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str, terminal: bool = False, given: str = ""):
        monkeypatch.setattr(options, "on_terminal", lambda _stream: terminal)
        return CliRunner().invoke(coursewire, arguments, input=given, obj=httpx.MockTransport(api))

    return run
