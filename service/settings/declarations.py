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
    """What the name, the Python type and the default of a setting do not show.

    `kind` is the type as the documentation names it. `parse` turns text into the value, and raises
    ValueError with what is wrong and what to do instead.
    """

    kind: str
    parse: Callable[[str], Any]
    meaning: str
    secret: bool = False


def _choice(words: Any, meaning: str) -> Declaration:
    return Declaration(", ".join(get_args(words)), parsers.one_of(*get_args(words)), meaning)


class Values(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting. Its environment variable is its name in capitals, behind `PREFIX`."""

    redis_url: Annotated[
        str | None,
        Declaration(
            "URL",
            parsers.redis_url,
            "Redis or Valkey: `redis://`, `rediss://`, `unix://`, or "
            "`sentinel://host:port,host:port/DB?service=NAME`. `coursewire up` starts a Valkey of "
            "its own where it is unset; everything else needs it",
            secret=True,
        ),
    ] = None
    data_dir: Annotated[
        Path,
        Declaration(
            "path",
            parsers.path,
            "where `coursewire up` keeps the embedded Valkey's data and the secrets it made",
        ),
    ] = Path(".coursewire")
    host: Annotated[str, Declaration("host", parsers.host, "the address the API listens on")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int,
        Declaration(
            "number",
            parsers.whole_number(0, 65535, ""),
            "the port the API listens on; 0 picks a free one",
        ),
    ] = 8000
    root_path: Annotated[
        str,
        Declaration(
            "path",
            read_prefix,
            "the path prefix under which a proxy serves the API, such as `/coursewire`; it may "
            "strip the prefix or leave it",
        ),
    ] = ""
    trusted_proxies: Annotated[
        tuple[str, ...],
        Declaration(
            "list, comma-separated",
            parsers.list_of(read_proxy),
            "addresses and CIDRs of the proxies whose `X-Forwarded-For` and "
            "`X-Forwarded-Proto` say who asks",
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
            "how long the API keeps an idle connection open; the proxy in front must give up "
            "earlier",
        ),
    ] = 75
    shutdown_delay_seconds: Annotated[
        int,
        Declaration(
            "seconds",
            parsers.whole_number(0, 600, "seconds"),
            "how long the API goes on serving after SIGTERM while `/readyz` answers 503, so "
            "that load balancers turn away first; `coursewire up` does not wait",
        ),
    ] = 0
    admin_token: Annotated[
        str | None,
        Declaration(
            "text",
            parsers.token,
            "the bearer token that may do everything. `coursewire up` makes one where it is "
            "unset, keeps it in the data directory and says where",
            secret=True,
        ),
    ] = None
    previous_admin_token: Annotated[
        str | None,
        Declaration(
            "text",
            parsers.token,
            "a second bearer token that may do everything, while clients change over from it to "
            "the admin token",
            secret=True,
        ),
    ] = None
    encryption_keys: Annotated[
        tuple[bytes, ...],
        Declaration(
            "keys, comma-separated",
            parsers.keys,
            "URL-safe base64 of 32 bytes each, to encrypt stored secrets with: the first "
            "encrypts, all decrypt. `coursewire up` makes one likewise; elsewhere required",
            secret=True,
        ),
    ] = ()
    allowed_targets: Annotated[
        tuple[str, ...],
        Declaration(
            "list, comma-separated",
            parsers.targets,
            "CIDRs, addresses and host names that requests may go to although they are "
            "private, loopback or otherwise refused",
        ),
    ] = ()
    egress_proxy: Annotated[
        str | None,
        Declaration(
            "URL",
            parsers.egress_proxy,
            "the forward proxy that pushes, polls and checks go through: "
            "`http://` or `https://[USER:PASSWORD@]HOST:PORT`. `HTTP_PROXY` and its like are not "
            "read",
            secret=True,
        ),
    ] = None
    no_proxy: Annotated[
        tuple[str, ...],
        Declaration(
            "list, comma-separated",
            parsers.patterns,
            "targets that are reached without the proxy: host names, `.example.com` for all "
            "hosts below it, addresses, CIDRs, `HOST:PORT`, or `*`",
        ),
    ] = ()
    ca_file: Annotated[
        Path | None,
        Declaration(
            "path",
            parsers.authorities,
            "a PEM bundle of private authorities. They are trusted beside the public ones, for "
            "receivers, upstreams, the proxy and `rediss://`",
        ),
    ] = None
    event_retention_seconds: Annotated[
        int, Declaration("seconds", _seconds, "how long events and their bodies are kept")
    ] = 7 * DAY
    event_log_max_bytes: Annotated[
        int,
        Declaration(
            "bytes",
            parsers.whole_number(1024**2, MAX_BYTES, "bytes"),
            "the most memory the event log may take; the oldest events go first",
        ),
    ] = 1024**3
    attempt_retention_seconds: Annotated[
        int,
        Declaration("seconds", _seconds, "how long the record of each delivery attempt is kept"),
    ] = 7 * DAY
    dead_retention_seconds: Annotated[
        int,
        Declaration("seconds", _seconds, "how long dead deliveries are listed with their reasons"),
    ] = 30 * DAY
    max_integrations: Annotated[
        int,
        Declaration(
            "number",
            parsers.whole_number(1, MAX_COUNT, ""),
            "how many integrations may be registered",
        ),
    ] = MAX_INTEGRATIONS
    max_subscriptions: Annotated[
        int,
        Declaration(
            "number",
            parsers.whole_number(1, MAX_COUNT, ""),
            "how many subscriptions there may be; every event is matched with each of them",
        ),
    ] = MAX_SUBSCRIPTIONS
    metrics_token: Annotated[
        str | None,
        Declaration(
            "text",
            parsers.token,
            "a bearer token for `/metrics` alone, which takes the admin token as well",
            secret=True,
        ),
    ] = None
    public_docs: Annotated[
        bool,
        Declaration(
            "boolean",
            parsers.boolean,
            "whether `/schema` and its documents are served without a token",
        ),
    ] = True
    console: Annotated[
        bool,
        Declaration("boolean", parsers.boolean, "whether `/console` is served"),
    ] = True
    log_format: Annotated[
        LogFormat,
        _choice(
            LogFormat, "JSON lines or readable text; `auto` is text on a terminal, JSON elsewhere"
        ),
    ] = "auto"
    log_level: Annotated[
        LogLevel,
        _choice(LogLevel, "the least severe lines that are logged"),
    ] = "info"


class Setting(Declaration, frozen=True, kw_only=True):
    """One environment variable, `COURSEWIRE_` left off its name.

    `default` is the text that means the default, "" where there is none.
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
    """The text from which `parse` makes `value`; "" for None."""
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


def settings_table() -> str:
    """Every setting as a Markdown table, which is the README's."""
    rows = [
        f"| `{setting.variable}` | {setting.kind} "
        f"| {f'`{setting.default}`' if setting.default else '-'} | {setting.meaning} |"
        for setting in SETTINGS
    ]
    return "\n".join(
        ["| variable | type | default | meaning |", "|---|---|---|---|", *rows],
    )
