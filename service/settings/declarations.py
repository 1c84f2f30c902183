"""The settings: the name, type, default and meaning of each, in one table."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

import msgspec

from service.domain.access.fronting import read_origin, read_prefix, read_proxy
from service.settings import parsers

PREFIX = "COURSEWIRE_"
MAX_INTEGRATIONS = 10_000
MAX_SUBSCRIPTIONS = 10_000
DAY = 86_400  # seconds
MAX_SECONDS = 10 * 365 * DAY  # that anything is kept
MAX_COUNT = 10_000_000
MAX_BYTES = 2**50

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

_seconds = parsers.whole_number(1, MAX_SECONDS, "seconds")


class Declaration(msgspec.Struct, frozen=True):
    """The properties of a setting besides its name, Python type and default. `kind` is the type as
    the documentation names it.

    `parse` converts text to the value, and raises ValueError with the fault and its remedy.
    """

    kind: str
    parse: Callable[[str], Any]
    meaning: str
    secret: bool = False


def _choice(words: Any, meaning: str) -> Declaration:
    return Declaration(", ".join(get_args(words)), parsers.one_of(*get_args(words)), meaning)


class Values(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting. Its environment variable is `PREFIX` and its name in capitals."""

    redis_url: Annotated[
        str | None,
        Declaration(
            "URL",
            parsers.redis_url,
            "the address of Redis or Valkey, which begins with `redis://`, `rediss://` or "
            "`unix://`, or has the form `sentinel://host:port,host:port/DB?service=NAME`. The API, "
            "workers and schedulers require this variable. `coursewire up` starts an embedded "
            "Valkey if the variable is unset",
            secret=True,
        ),
    ] = None
    data_dir: Annotated[
        Path,
        Declaration(
            "path",
            parsers.path,
            "the directory in which `coursewire up` stores the data of the embedded Valkey and "
            "the generated secrets",
        ),
    ] = Path(".coursewire")
    host: Annotated[
        str, Declaration("host", parsers.host, "the address on which the API listens")
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Declaration(
            "number",
            parsers.whole_number(0, 65535, ""),
            "the port on which the API listens; 0 selects a free port",
        ),
    ] = 8000
    root_path: Annotated[
        str,
        Declaration(
            "path",
            read_prefix,
            "the path prefix under which a proxy serves the API, such as `/coursewire`. The proxy"
            " may strip or keep the prefix",
        ),
    ] = ""
    trusted_proxies: Annotated[
        tuple[str, ...],
        Declaration(
            "list, comma-separated",
            parsers.list_of(read_proxy),
            "addresses and CIDRs of the proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` "
            "the API trusts",
        ),
    ] = ()
    cors_origins: Annotated[
        tuple[str, ...],
        Declaration(
            "list, comma-separated",
            parsers.list_of(read_origin),
            "origins whose web pages may call the API, such as `https://app.example.com`",
        ),
    ] = ()
    keep_alive_seconds: Annotated[
        int,
        Declaration(
            "seconds",
            parsers.whole_number(1, 3_600, "seconds"),
            "how long the API keeps an idle connection open. The idle timeout of a proxy in front "
            "of the API must be shorter than this value",
        ),
    ] = 75
    shutdown_delay_seconds: Annotated[
        int,
        Declaration(
            "seconds",
            parsers.whole_number(0, 600, "seconds"),
            "how long the API continues to serve requests after SIGTERM. After SIGTERM, `/readyz` "
            "returns 503, so that load balancers remove the process. `coursewire up` does not use "
            "this setting",
        ),
    ] = 0
    instance: Annotated[
        str | None,
        Declaration(
            "text",
            parsers.instance,
            "a unique name that the worker keeps across restarts. After a crash, the restarted "
            "worker immediately continues its earlier work. Without a name, a worker continues the "
            "work of the crashed worker after up to 11 seconds. `coursewire up` sets a name if the "
            "variable is unset",
        ),
    ] = None
    admin_token: Annotated[
        str | None,
        Declaration(
            "text",
            parsers.token,
            "the bearer token with all rights. The API requires this variable. `coursewire up` "
            "generates a token in the data directory if the variable is unset",
            secret=True,
        ),
    ] = None
    previous_admin_token: Annotated[
        str | None,
        Declaration(
            "text",
            parsers.token,
            "a second bearer token with all rights, for clients that do not have the new admin "
            "token yet",
            secret=True,
        ),
    ] = None
    encryption_keys: Annotated[
        tuple[bytes, ...],
        Declaration(
            "keys, comma-separated",
            parsers.keys,
            "keys for stored secrets, each 32 bytes in URL-safe base64. Coursewire encrypts with "
            "the first key, and decrypts with the key that encrypted the secret. The API, workers "
            "and schedulers require this variable. "
            "`coursewire up` generates a key in the data directory if the variable is unset",
            secret=True,
        ),
    ] = ()
    allowed_targets: Annotated[
        tuple[str, ...],
        Declaration(
            "list, comma-separated",
            parsers.targets,
            "CIDRs, addresses and host names to which Coursewire may send requests, in addition to "
            "public addresses. Coursewire refuses all other targets, except names that only the "
            "forward proxy can resolve",
        ),
    ] = ()
    egress_proxy: Annotated[
        str | None,
        Declaration(
            "URL",
            parsers.egress_proxy,
            "the forward proxy for pushes, polls and checks: `http://[USER:PASSWORD@]HOST:PORT` "
            "or `https://[USER:PASSWORD@]HOST:PORT`. Coursewire does not read `HTTP_PROXY`, "
            "`HTTPS_PROXY` or `NO_PROXY`",
            secret=True,
        ),
    ] = None
    no_proxy: Annotated[
        tuple[str, ...],
        Declaration(
            "list, comma-separated",
            parsers.patterns,
            "targets that Coursewire connects to without the forward proxy: host names, "
            "`.example.com` for all hosts below `example.com`, addresses, CIDRs, `HOST:PORT`, or "
            "`*` for all targets",
        ),
    ] = ()
    ca_file: Annotated[
        Path | None,
        Declaration(
            "path",
            parsers.authorities,
            "a PEM bundle of certificate authorities. Every part trusts these authorities in "
            "addition to the public authorities, for receivers, upstreams, the forward proxy, "
            "and `rediss://` URLs without the parameter `ssl_ca_certs`",
        ),
    ] = None
    event_retention_seconds: Annotated[
        int,
        Declaration(
            "seconds",
            _seconds,
            "how long Coursewire keeps events, within the limit of "
            "`COURSEWIRE_EVENT_LOG_MAX_BYTES`. The minimum is 330126 (3.8 days), which covers "
            "the default retries",
        ),
    ] = 7 * DAY
    event_log_max_bytes: Annotated[
        int,
        Declaration(
            "bytes",
            parsers.whole_number(1024**2, MAX_BYTES, "bytes"),
            "the maximum memory of the event log. Every five minutes, Coursewire removes the "
            "oldest events that exceed this limit",
        ),
    ] = 1024**3
    attempt_retention_seconds: Annotated[
        int,
        Declaration(
            "seconds",
            _seconds,
            "how long Coursewire keeps delivery attempts. Coursewire keeps at most 10,100 attempts "
            "for each subscription",
        ),
    ] = 7 * DAY
    dead_retention_seconds: Annotated[
        int,
        Declaration("seconds", _seconds, "how long the API lists dead deliveries"),
    ] = 30 * DAY
    max_integrations: Annotated[
        int,
        Declaration(
            "number",
            parsers.whole_number(1, MAX_COUNT, ""),
            "the maximum number of integrations",
        ),
    ] = MAX_INTEGRATIONS
    max_subscriptions: Annotated[
        int,
        Declaration(
            "number",
            parsers.whole_number(1, MAX_COUNT, ""),
            "the maximum number of subscriptions. Before you raise this limit, read "
            "[Scaling](operations/scaling.md#know-what-grows)",
        ),
    ] = MAX_SUBSCRIPTIONS
    metrics_token: Annotated[
        str | None,
        Declaration(
            "text",
            parsers.token,
            "a bearer token with the scope `metrics`, for Prometheus. `/metrics` also accepts "
            "other tokens with the scope `admin`, `read` or `metrics`",
            secret=True,
        ),
    ] = None
    public_docs: Annotated[
        bool,
        Declaration(
            "boolean",
            parsers.boolean,
            "whether the API serves `/schema` and the documents below `/schema` without a token",
        ),
    ] = True
    console: Annotated[
        bool,
        Declaration("boolean", parsers.boolean, "whether the API serves `/console`"),
    ] = True
    docs_dir: Annotated[
        Path | None,
        Declaration(
            "path",
            parsers.path,
            "the folder that `make site` builds. The API serves this folder at `/docs`",
        ),
    ] = None
    log_format: Annotated[
        LogFormat,
        _choice(
            LogFormat,
            "the format of the log. `auto` selects `console` (text) on a terminal and `json` "
            "elsewhere",
        ),
    ] = "auto"
    log_level: Annotated[
        LogLevel,
        _choice(LogLevel, "the lowest severity that is logged"),
    ] = "info"


class Setting(Declaration, frozen=True, kw_only=True):
    """One environment variable, without `COURSEWIRE_` in its name.

    `default` is the text that means the default, "" if there is none.
    """

    name: str
    default: str

    @property
    def field(self) -> str:
        """The attribute of Settings that carries it."""
        return self.name.lower()

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name


def as_text(value: object) -> str:
    """The text that `parse` converts to `value`; "" for None."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case tuple():
            return ",".join(as_text(item) for item in value)
        case bytes():
            return base64.urlsafe_b64encode(value).decode()
        case _:
            return str(value)


def _declared() -> tuple[Setting, ...]:
    defaults = Values()
    hints = get_type_hints(Values, include_extras=True)
    return tuple(
        Setting(
            name=field.upper(),
            default=as_text(getattr(defaults, field)),
            **msgspec.structs.asdict(hints[field].__metadata__[0]),
        )
        for field in Values.__struct_fields__
    )


SETTINGS = _declared()
