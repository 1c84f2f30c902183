"""Structured logging: one wide line per operation, without secrets, for people or machines."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from service.colour import wants_colour

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

_REDACTED = "***"
_PLAIN = frozenset({bool, int, float, type(None)})  # values without text

# The last words of keys with secret values: `x-api-key`, `admin_token`, `keys`.
_SECRET_KEY = re.compile(
    r"(?:^|[_-])(?:authorization|cookie|password|passphrase|secrets?|tokens?|"
    r"api[_-]?keys?|encryption[_-]?keys?|private[_-]?key|signature)$",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(?<=://)[^\s/?#]*@")
_SECRET_PARAMETER = re.compile(
    r"([?&][\w.-]*(?:token|secret|key|password|signature|sig)=)[^&\s#]+", re.IGNORECASE
)
_API_KEY = re.compile(r"\b(cwk_[0-9a-z]+)_[0-9a-z]+")  # the first part names its kind
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]+", re.IGNORECASE)

# Control characters in foreign text would act on the reader's terminal or forge lines.
_CONTROL = {code: f"\\x{code:02x}" for code in [*range(32), *range(0x7F, 0xA0)]}
_CONTROL_IN_TRACEBACK = {code: text for code, text in _CONTROL.items() if code not in (9, 10)}

# Libraries that log operations which already have one wide line.
_REPEATING = (
    "aiohttp.access",
    "httpcore",
    "httpx",
    "rq.worker",
    "uvicorn.access",
    "uvicorn.error",
)


def configure(
    log_format: str = "auto",
    level: str = "info",
    component: str | None = None,
    *,
    stream: TextIO | None = None,
) -> None:
    """Send every log line of this process, the libraries' too, to `stream` (default stderr).

    `log_format` is `json`, `console`, or `auto`: console on a terminal, JSON elsewhere.
    `component` names the process on each line of JSON. May be called again; the last call counts.
    """
    out = sys.stderr if stream is None else stream
    if log_format == "auto":
        log_format = "console" if out.isatty() else "json"
    known_to_all: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        _named(component if log_format == "json" else None),
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    rendering: list[Processor] = [
        redact,
        *(_for_people(out) if log_format == "console" else _for_machines()),
    ]
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=known_to_all,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    threshold = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(threshold)
    for name in _REPEATING:
        logging.getLogger(name).setLevel(max(threshold, logging.WARNING))
    logging.captureWarnings(capture=True)
    structlog.configure(
        # The bound logger has already inserted positional arguments.
        processors=[
            one
            for one in (*known_to_all, *rendering)
            if not isinstance(one, structlog.stdlib.PositionalArgumentsFormatter)
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=partial(_Lines, handler),
    )


class _Lines:
    """Writes our own lines to the stream of the libraries' lines. A logging record for each line
    would double its cost, and the API writes one for each request."""

    def __init__(self, handler: logging.StreamHandler[TextIO], name: str = "") -> None:
        self.name = name
        self._handler = handler

    def msg(self, line: str) -> None:
        """Writes a line; a closed stream does not raise."""
        with self._handler.lock or nullcontext(), suppress(OSError, ValueError):
            self._handler.stream.write(line + self._handler.terminator)
            self._handler.flush()

    debug = info = warning = error = critical = exception = log = msg


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose lines carry `name`; ids bound with `structlog.contextvars` are added.

    Log one line when an operation ends: `get_logger("poll").info("poll", pages=3, ...)`.
    """
    return structlog.stdlib.get_logger(name)


def redact(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    """Replace secrets: values of secret-sounding keys and, in any text, user information of URLs,
    secret query parameters, bearer tokens and API keys."""
    return {
        key: value if type(value) in _PLAIN and not _names_a_secret(key) else _clean(key, value)
        for key, value in event_dict.items()
    }


def _clean(key: str, value: Any) -> Any:
    if value is not None and _names_a_secret(key):
        return _REDACTED
    match value:
        case str():
            return _clean_text(value)
        case Mapping():
            return {inner: _clean(str(inner), item) for inner, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean("", item) for item in value]
        case None | bool() | int() | float():
            return value
        case _:
            return _clean_text(str(value) if isinstance(value, BaseException) else repr(value))


@lru_cache(maxsize=1_000)
def _names_a_secret(key: str) -> bool:
    return _SECRET_KEY.search(key) is not None


def _clean_text(text: str) -> str:
    if "://" in text:
        text = _USERINFO.sub(f"{_REDACTED}@", text)
    if "=" in text:
        text = _SECRET_PARAMETER.sub(rf"\1{_REDACTED}", text)
    if "cwk_" in text:
        text = _API_KEY.sub(rf"\1_{_REDACTED}", text)
    if len(text.split(None, 1)) > 1:
        text = _BEARER.sub(rf"\1 {_REDACTED}", text)
    return text


def _named(component: str | None) -> Processor:
    def add_component(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
        if component is not None:
            event_dict.setdefault("component", component)
        return event_dict

    return add_component


def _for_machines() -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        # ASCII only, so that no text can break the line or the reader's decoding.
        _as_json,
    ]


# Created once, because `json.dumps` creates an encoder for each line unless all options are
# default.
_encode = json.JSONEncoder(default=repr).encode


def _as_json(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> str:
    return _encode(event_dict)


def _for_people(out: TextIO) -> list[Processor]:
    return [
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
        _printable,
        structlog.dev.ConsoleRenderer(
            colors=wants_colour(out),
            sort_keys=False,
            # The default one prints local variables, secrets included.
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


def _printable(_logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
    for key, value in event_dict.items():
        if isinstance(value, str):
            kept = _CONTROL_IN_TRACEBACK if key in ("exception", "stack") else _CONTROL
            event_dict[key] = value.translate(kept)
    return event_dict
