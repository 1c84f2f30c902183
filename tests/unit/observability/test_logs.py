from __future__ import annotations

import io
import json
import logging
import warnings

import pytest
import structlog

from service import logs
from service.colour import wants_colour


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _restored_logging(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    structlog.contextvars.clear_contextvars()
    # Left on by whatever configured logging before, a second call would change nothing.
    logging.captureWarnings(False)
    yield
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(out: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_json_line_carries_time_level_logger_component_and_bound_ids():
    out = io.StringIO()
    logs.configure("json", "info", "worker", stream=out)
    with structlog.contextvars.bound_contextvars(integration="int_1"):
        logs.get_logger("poll").info("poll done", pages=3, kind="delta")
    (line,) = lines(out)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "poll done",
        "pages": 3,
        "kind": "delta",
        "integration": "int_1",
        "level": "info",
        "logger": "poll",
        "component": "worker",
    }


def test_lines_of_libraries_come_out_the_same_way():
    out = io.StringIO()
    logs.configure("json", "info", "api", stream=out)
    logging.getLogger("uvicorn.error").error("no answer from %s", "http://me:hidden@127.0.0.1")
    (line,) = lines(out)
    assert line["event"] == "no answer from http://***@127.0.0.1"
    assert line["logger"] == "uvicorn.error"
    assert line["component"] == "api"


def test_libraries_that_repeat_what_our_own_lines_say_are_quiet():
    out = io.StringIO()
    logs.configure("json", "info", stream=out)
    logging.getLogger("httpx").info("HTTP Request: POST http://127.0.0.1")
    logging.getLogger("uvicorn.error").info("Started server process")
    assert out.getvalue() == ""


def test_lines_below_the_level_are_left_out():
    out = io.StringIO()
    logs.configure("json", "warning", stream=out)
    logs.get_logger("poll").info("poll done")
    logging.getLogger("redis").info("connected")
    logs.get_logger("poll").warning("lease or epoch lost, poll released")
    assert [line["event"] for line in lines(out)] == ["lease or epoch lost, poll released"]


def test_python_warnings_are_logged():
    out = io.StringIO()
    logs.configure("json", stream=out)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old habit", stacklevel=1)
    assert "old habit" in lines(out)[0]["event"]


def test_a_second_configuration_replaces_the_first():
    first, second = io.StringIO(), io.StringIO()
    logger = logs.get_logger("poll")
    logs.configure("json", stream=first)
    logs.configure("json", stream=second)
    logger.info("poll done")
    assert first.getvalue() == ""
    assert len(lines(second)) == 1


@pytest.mark.parametrize(
    "key",
    [
        "authorization",
        "Authorization",
        "api_key",
        "x-api-key",
        "secret",
        "secrets",
        "admin_token",
        "password",
        "encryption_keys",
        "webhook-signature",
        "set-cookie",
    ],
)
def test_a_value_under_a_telling_key_is_redacted_at_any_depth(key):
    cleaned = logs.redact(None, "", {key: "hidden", "request": {"headers": [{key: "hidden"}]}})
    assert cleaned == {key: "***", "request": {"headers": [{key: "***"}]}}


def test_keys_that_only_resemble_secrets_keep_their_values():
    event = {"key": "cw:events", "author": "Ann", "tokenizer": "x", "secret_version": 2}
    assert logs.redact(None, "", dict(event)) == event


def test_a_missing_secret_is_told_from_a_redacted_one():
    assert logs.redact(None, "", {"token": None}) == {"token": None}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://user:p@ss@host:6379/0 is away", "redis://***@host:6379/0 is away"),
        ("rediss://:pass@host", "rediss://***@host"),
        ("https://host/path@2x.png", "https://host/path@2x.png"),
        ("https://host/hook?id=1&token=abc&x=2", "https://host/hook?id=1&token=***&x=2"),
        ("sent Authorization: Bearer abc.def", "sent Authorization: Bearer ***"),
        ("it is cwk_0a1b_zyxw0987 then", "it is cwk_0a1b_*** then"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_secrets_inside_text_are_redacted(text, shown):
    assert logs.redact(None, "", {"event": text, "urls": (text,)}) == {
        "event": shown,
        "urls": [shown],
    }


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_is_shown_without_local_variables_or_secrets(log_format):
    out = io.StringIO()
    logs.configure(log_format, stream=out)
    secret = "redis://:hidden@host/first"
    try:
        int(secret)
    except ValueError:
        logs.get_logger("poll").exception("poll failed")
    shown = out.getvalue()
    assert "ValueError: invalid literal" in shown
    assert "redis://***@host/first" in shown
    assert "hidden" not in shown


def test_auto_is_console_on_a_terminal_and_json_elsewhere():
    terminal, pipe = Terminal(), io.StringIO()
    logs.configure("auto", stream=terminal)
    logs.get_logger("poll").info("poll done", pages=3)
    logs.configure("auto", stream=pipe)
    logs.get_logger("poll").info("poll done", pages=3)
    assert "\x1b[" in terminal.getvalue()
    assert "poll done" in terminal.getvalue()
    assert lines(pipe)[0]["pages"] == 3


def test_colours_follow_the_common_variables(monkeypatch):
    assert wants_colour(Terminal())
    assert not wants_colour(io.StringIO())
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Terminal())


def test_foreign_text_can_neither_forge_a_line_nor_steer_the_terminal():
    out = io.StringIO()
    logs.configure("console", stream=out)
    logs.get_logger("poll").info("title\x1b[2J", title="a\x1b]0;x\x07\nfake line\x9b")
    assert len(out.getvalue().splitlines()) == 1
    assert not {"\x1b", "\x07", "\x9b"} & set(out.getvalue())


def test_values_of_any_type_can_be_logged():
    out = io.StringIO()
    logs.configure("json", stream=out)
    logs.get_logger("poll").info("x", path=object, raw=b"\xff", error=ValueError("bad"), s={1})
    (line,) = lines(out)
    assert line["error"] == "bad"
    assert line["raw"] == "b'\\xff'"
    assert line["s"] == [1]
