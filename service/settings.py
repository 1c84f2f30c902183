"""The environment as frozen settings, refused as a whole where any of it makes no sense."""

from __future__ import annotations

import base64
import binascii
import difflib
import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import parse_qs, quote, urlsplit

import msgspec

from service.authorities import authority_faults, certificates_fault, client_certificate_fault
from service.domain.access.reverse_proxies import read_origin, read_prefix, read_proxy
from service.domain.delivery.retry import DEFAULT_SCHEDULE, JITTER
from service.domain.egress.certificates import Unusable, read_authorities
from service.domain.egress.routes import read_egress_proxy, read_pattern
from service.domain.errors import SettingsError
from service.redis_url import read_redis_url
from service.secret_files import SUFFIX, read_secret_file

PREFIX = "COURSEWIRE_"
MAX_INTEGRATIONS = 10_000
MAX_SUBSCRIPTIONS = 10_000
DAY = 86_400  # seconds

# The longest the default retries of one delivery take, and an hour for the attempts
# themselves and the queueing between them; bodies must outlive it. Seconds.
LISTEN_SECRET = "COURSEWIRE_LISTEN_SECRET"  # noqa: S105 - read by `coursewire listen` alone
RETRY_SPAN = math.ceil(sum(DEFAULT_SCHEDULE) * (1 + JITTER)) + 3600

MAX_SECONDS = 10 * 365 * DAY  # that anything is kept
MAX_COUNT = 10_000_000
MAX_BYTES = 2**50
MIN_TOKEN_LENGTH = 16
MAX_TOKEN_LENGTH = 1_024  # it goes into a header
KEY_BYTES = 32
MAKE_A_TOKEN = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"  # noqa: S105 - how to make one
MAKE_A_KEY = (
    "python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"
)

LogFormat = Literal["auto", "json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]

_HOST_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_SHOWN = 60  # characters of a wrong value that are repeated


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One environment variable, `COURSEWIRE_` left off its name.

    `default` is what the variable would have to say to mean its default, "" where there is
    none. `parse` turns text into the value and raises ValueError with what is wrong and what
    to do instead.
    """

    name: str
    kind: str
    default: str
    meaning: str
    parse: Callable[[str], Any]
    secret: bool = False

    @property
    def field(self) -> str:
        """The attribute of Settings that carries it."""
        return self.name.lower()


def _redis_url(text: str) -> str:
    options = read_redis_url(text).options
    if (file := options.get("ssl_ca_certs")) and (fault := certificates_fault(file)):
        raise ValueError(f"gives the option ssl_ca_certs={file}, {fault}; correct the path")
    if file := options.get("ssl_certfile"):
        fault = client_certificate_fault(file, options.get("ssl_keyfile"))
        if fault is not None:
            raise ValueError(f"gives ssl_certfile and ssl_keyfile, which {fault}; correct them")
    return text


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _host(text: str) -> str:
    address, percent, zone = text.partition("%")
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        if not _is_host_name(text.lower()):
            raise ValueError(
                f"{_shown(text)} is neither an address nor a host name; write for example "
                "127.0.0.1 or ::1, without brackets and without a port"
            ) from None
        return text.lower()
    if percent and (ip.version == 4 or not _ZONE.fullmatch(zone)):
        raise ValueError(
            f"{_shown(text)} has a zone that is not readable; write it as in fe80::1%eth0"
        )
    return f"{address.lower()}{percent}{zone}"


def _path(text: str) -> Path:
    if not text.isprintable():
        raise ValueError(
            f"{_shown(text)} contains characters that do not print; write a plain path"
        )
    return _expanded(text)


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError(f"{_shown(text)} names an unknown user; write the path in full") from None


def _is_host_name(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return (
        len(text) <= 253
        and all(_HOST_LABEL.fullmatch(label) for label in labels)
        and not labels[-1].isdecimal()  # else it would be a mistyped IPv4 address
    )


def _whole_number(least: int, most: int, unit: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        what = f"a whole number of {unit}".removesuffix(" of ")
        if not re.fullmatch(r"[0-9]+", text):
            raise ValueError(f"{_shown(text)} is not {what}; write it in digits alone")
        digits = text.lstrip("0") or "0"
        if len(digits) > len(str(most)) or int(digits) > most:
            raise ValueError(f"{_shown(text)} is too large; give at most {most} {unit}".rstrip())
        if (number := int(digits)) < least:
            raise ValueError(f"{number} is too small; give at least {least} {unit}".rstrip())
        return number

    return parse


def _token(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"has blanks or characters outside ASCII; make one with {MAKE_A_TOKEN}")
    if len(text) < MIN_TOKEN_LENGTH:
        raise ValueError(
            f"has {len(text)} character{'s' if len(text) > 1 else ''}, "
            f"at least {MIN_TOKEN_LENGTH} are needed; "
            f"make one with {MAKE_A_TOKEN}"
        )
    if len(text) > MAX_TOKEN_LENGTH:
        raise ValueError(
            f"has {len(text)} characters, at most {MAX_TOKEN_LENGTH} can be sent; "
            f"make one with {MAKE_A_TOKEN}"
        )
    return text


def _keys(text: str) -> tuple[bytes, ...]:
    keys: list[bytes] = []
    for number, part in enumerate((part.strip() for part in text.split(",")), 1):
        try:
            # The padding may be missing: some tools that make such keys leave it off.
            key = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(
                f"key {number} is not URL-safe base64; make one with {MAKE_A_KEY}"
            ) from None
        if len(key) != KEY_BYTES:
            raise ValueError(
                f"key {number} has {len(key)} bytes instead of {KEY_BYTES}; "
                f"make one with {MAKE_A_KEY}"
            )
        if key in keys:
            raise ValueError(f"key {number} repeats key {keys.index(key) + 1}; leave it off")
        keys.append(key)
    return tuple(keys)


def _targets(text: str) -> tuple[str, ...]:
    return tuple(_target(part.strip().lower()) for part in text.split(",") if part.strip())


def _target(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        meant = ipaddress.ip_network(text, strict=False)
    except ValueError:
        pass
    else:
        raise ValueError(f"{_shown(text)} has host bits set; write {meant}")
    if not _is_host_name(text):
        raise ValueError(
            f"{_shown(text)} is neither an address, a CIDR nor a host name; "
            "write for example 10.0.0.0/8,hooks.internal"
        )
    return text


def _list_of(read: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    """The parser of a list whose parts `read` takes; each part stands in it once."""

    def parse(text: str) -> tuple[str, ...]:
        parts = (part.strip() for part in text.split(","))
        return tuple(dict.fromkeys(read(part) for part in parts if part))

    return parse


def _egress_proxy(text: str) -> str:
    read_egress_proxy(text)
    return text


def _patterns(text: str) -> tuple[str, ...]:
    entries = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for entry in entries:
        read_pattern(entry)
    return entries


def _authorities(text: str) -> Path:
    path = _expanded(text).absolute()
    try:
        read_authorities(path.read_bytes())
    except Unusable as error:
        raise ValueError(f"names {str(path)!r}, which {error}; {error.remedy}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name is not usable"
        raise ValueError(
            f"names {str(path)!r}, which cannot be read ({reason}); name a readable file of PEM "
            "certificates, or unset it"
        ) from None
    return path


def _boolean(text: str) -> bool:
    match text.lower():
        case "true" | "1" | "yes" | "on":
            return True
        case "false" | "0" | "no" | "off":
            return False
    raise ValueError(f"{_shown(text)} is neither true nor false; write one of these")


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"{_shown(text)} is not one of {', '.join(choices)}")
        return text.lower()

    return parse


_seconds = _whole_number(1, MAX_SECONDS, "seconds")

SETTINGS: tuple[Setting, ...] = (
    Setting(
        name="REDIS_URL",
        kind="URL",
        default="",
        meaning="Redis or Valkey: `redis://`, `rediss://`, `unix://`, or "
        "`sentinel://host:port,host:port/DB?service=NAME`. `coursewire up` starts a Valkey of "
        "its own where it is unset; everything else needs it",
        parse=_redis_url,
        secret=True,
    ),
    Setting(
        name="DATA_DIR",
        kind="path",
        default=".coursewire",
        meaning="where `coursewire up` keeps the embedded Valkey's data and the secrets it made",
        parse=_path,
    ),
    Setting(
        name="HOST",
        kind="host",
        default="127.0.0.1",
        meaning="the address the API listens on",
        parse=_host,
    ),
    Setting(
        name="PORT",
        kind="number",
        default="8000",
        meaning="the port the API listens on; 0 picks a free one",
        parse=_whole_number(0, 65535, ""),
    ),
    Setting(
        name="ROOT_PATH",
        kind="path",
        default="",
        meaning="the path prefix under which a proxy serves the API, such as `/coursewire`; it may "
        "strip the prefix or leave it",
        parse=read_prefix,
    ),
    Setting(
        name="TRUSTED_PROXIES",
        kind="list, comma-separated",
        default="",
        meaning="addresses and CIDRs of the proxies whose `X-Forwarded-For` and "
        "`X-Forwarded-Proto` say who asks",
        parse=_list_of(read_proxy),
    ),
    Setting(
        name="CORS_ORIGINS",
        kind="list, comma-separated",
        default="",
        meaning="origins whose web pages may call the API, such as `https://app.example.com`",
        parse=_list_of(read_origin),
    ),
    Setting(
        name="KEEP_ALIVE_SECONDS",
        kind="seconds",
        default="75",
        meaning="how long the API keeps an idle connection open; the proxy in front must give up "
        "earlier",
        parse=_whole_number(1, 3_600, "seconds"),
    ),
    Setting(
        name="SHUTDOWN_DELAY_SECONDS",
        kind="seconds",
        default="0",
        meaning="how long the API goes on serving after SIGTERM while `/readyz` answers 503, so "
        "that load balancers turn away first; `coursewire up` does not wait",
        parse=_whole_number(0, 600, "seconds"),
    ),
    Setting(
        name="ADMIN_TOKEN",
        kind="text",
        default="",
        meaning="the bearer token that may do everything. `coursewire up` makes one where it is "
        "unset, keeps it in the data directory and says where",
        parse=_token,
        secret=True,
    ),
    Setting(
        name="ENCRYPTION_KEYS",
        kind="keys, comma-separated",
        default="",
        meaning="URL-safe base64 of 32 bytes each, to encrypt stored secrets with: the first "
        "encrypts, all decrypt. `coursewire up` makes one likewise; elsewhere required",
        parse=_keys,
        secret=True,
    ),
    Setting(
        name="ALLOWED_TARGETS",
        kind="list, comma-separated",
        default="",
        meaning="CIDRs, addresses and host names that requests may go to although they are "
        "private, loopback or otherwise refused",
        parse=_targets,
    ),
    Setting(
        name="EGRESS_PROXY",
        kind="URL",
        default="",
        meaning="the forward proxy that pushes, polls and checks go through: "
        "`http://` or `https://[USER:PASSWORD@]HOST:PORT`. `HTTP_PROXY` and its like are not read",
        parse=_egress_proxy,
        secret=True,
    ),
    Setting(
        name="NO_PROXY",
        kind="list, comma-separated",
        default="",
        meaning="targets that are reached without the proxy: host names, `.example.com` for all "
        "hosts below it, addresses, CIDRs, `HOST:PORT`, or `*`",
        parse=_patterns,
    ),
    Setting(
        name="CA_FILE",
        kind="path",
        default="",
        meaning="a PEM bundle of private authorities. They are trusted beside the public ones, for "
        "receivers, upstreams, the proxy and `rediss://`",
        parse=_authorities,
    ),
    Setting(
        name="EVENT_RETENTION_SECONDS",
        kind="seconds",
        default=str(7 * DAY),
        meaning="how long events and their bodies are kept",
        parse=_seconds,
    ),
    Setting(
        name="EVENT_LOG_MAX_BYTES",
        kind="bytes",
        default=str(1024**3),
        meaning="the most memory the event log may take; the oldest events go first",
        parse=_whole_number(1024**2, MAX_BYTES, "bytes"),
    ),
    Setting(
        name="ATTEMPT_RETENTION_SECONDS",
        kind="seconds",
        default=str(7 * DAY),
        meaning="how long the record of each delivery attempt is kept",
        parse=_seconds,
    ),
    Setting(
        name="DEAD_RETENTION_SECONDS",
        kind="seconds",
        default=str(30 * DAY),
        meaning="how long dead deliveries are listed with their reasons",
        parse=_seconds,
    ),
    Setting(
        name="MAX_INTEGRATIONS",
        kind="number",
        default=str(MAX_INTEGRATIONS),
        meaning="how many integrations may be registered",
        parse=_whole_number(1, MAX_COUNT, ""),
    ),
    Setting(
        name="MAX_SUBSCRIPTIONS",
        kind="number",
        default=str(MAX_SUBSCRIPTIONS),
        meaning="how many subscriptions there may be; every event is matched with each of them",
        parse=_whole_number(1, MAX_COUNT, ""),
    ),
    Setting(
        name="METRICS_TOKEN",
        kind="text",
        default="",
        meaning="a bearer token for `/metrics` alone, which takes the admin token as well",
        parse=_token,
        secret=True,
    ),
    Setting(
        name="PUBLIC_DOCS",
        kind="boolean",
        default="true",
        meaning="whether `/schema` and its documents are served without a token",
        parse=_boolean,
    ),
    Setting(
        name="LOG_FORMAT",
        kind="auto, json, console",
        default="auto",
        meaning="JSON lines or readable text; `auto` is text on a terminal, JSON elsewhere",
        parse=_one_of("auto", "json", "console"),
    ),
    Setting(
        name="LOG_LEVEL",
        kind="debug, info, warning, error",
        default="info",
        meaning="the least severe lines that are logged",
        parse=_one_of("debug", "info", "warning", "error"),
    ),
)


def _given(environ: Mapping[str, str], variable: str, *, secret: bool) -> tuple[str, str]:
    """What a variable, or the file that it names, says, and from where; empty if nothing."""
    text = environ.get(variable, "").strip()
    path = environ.get(variable + SUFFIX, "").strip() if secret else ""
    if not path:
        return variable, text
    if text:
        raise ValueError(f"{variable} and {variable}{SUFFIX} are both set; unset one of them")
    try:
        return f"the content of {variable}{SUFFIX}", read_secret_file(path)
    except ValueError as error:
        raise ValueError(f"{variable}{SUFFIX} {error}") from None


def listen_secret(environ: Mapping[str, str]) -> str | None:
    """The secret that `coursewire listen` is given in the environment, or in a file that is named
    there; None if there is none. Raises SettingsError."""
    try:
        return _given(environ, LISTEN_SECRET, secret=True)[1] or None
    except ValueError as error:
        raise SettingsError(str(error)) from None


_BY_VARIABLE = {PREFIX + setting.name: setting for setting in SETTINGS}
_SECRET_FIELDS = frozenset(setting.field for setting in SETTINGS if setting.secret)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the environment asks for, checked; `SETTINGS` gives each field's meaning.

    Secrets (`redis_url`, `egress_proxy`, tokens, `encryption_keys`) never appear in its `repr`.
    """

    redis_url: str | None = None
    data_dir: Path = Path(".coursewire")
    host: str = "127.0.0.1"
    port: int = 8000
    root_path: str = ""
    trusted_proxies: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    keep_alive_seconds: int = 75
    shutdown_delay_seconds: int = 0
    admin_token: str | None = None
    encryption_keys: tuple[bytes, ...] = ()
    allowed_targets: tuple[str, ...] = ()
    egress_proxy: str | None = None
    no_proxy: tuple[str, ...] = ()
    ca_file: Path | None = None
    event_retention_seconds: int = 7 * DAY
    event_log_max_bytes: int = 1024**3
    attempt_retention_seconds: int = 7 * DAY
    dead_retention_seconds: int = 30 * DAY
    max_integrations: int = MAX_INTEGRATIONS
    max_subscriptions: int = MAX_SUBSCRIPTIONS
    metrics_token: str | None = None
    public_docs: bool = True
    log_format: LogFormat = "auto"
    log_level: LogLevel = "info"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """The settings that `environ` holds; a variable set to blanks counts as unset.

        Every secret may stand in a file instead, whose path is in the variable's name with
        `_FILE` behind it. `SSL_CERT_FILE` and `SSL_CERT_DIR` are checked too. Raises
        SettingsError naming every problem at once: the variable, what is wrong with it, and
        what to write instead.
        """
        problems = [_unknown(name) for name in sorted(environ) if _is_unknown(name)]
        values: dict[str, Any] = {}
        for variable, setting in _BY_VARIABLE.items():
            try:
                source, text = _given(environ, variable, secret=setting.secret)
            except ValueError as error:
                problems.append(str(error))
                continue
            if not text:
                continue
            try:
                values[setting.field] = setting.parse(text)
            except ValueError as error:
                problems.append(f"{source} {error}")
        if "redis_url" in values and "ca_file" in values:
            values["redis_url"] = _trusting(values["redis_url"], values["ca_file"])
        settings = cls(**values)
        problems += _contradictions(settings)
        problems += authority_faults(environ)
        if problems:
            raise SettingsError(_listed(problems))
        return settings

    def to_environ(self) -> dict[str, str]:
        """The variables from which `from_env` makes these settings again."""
        defaults = Settings()
        return {
            variable: _text(value)
            for variable, setting in _BY_VARIABLE.items()
            if (value := getattr(self, setting.field)) != getattr(defaults, setting.field)
        }

    def require(self, *names: str) -> None:
        """Raise SettingsError for those of the variables `names` (without prefix) that are unset.

        Which process needs which is the caller's knowledge; all that are missing are named.
        """
        problems = [
            f"{PREFIX}{name} is not set; {_REMEDIES[name]}"
            for name in names
            if not getattr(self, name.lower())
        ]
        if problems:
            raise SettingsError(_listed(problems))

    def require_redis_url(self) -> str:
        """The Redis address. Raises SettingsError if there is none."""
        self.require("REDIS_URL")
        return cast("str", self.redis_url)

    def __repr__(self) -> str:
        fields = ", ".join(
            f"{name}={'***' if name in _SECRET_FIELDS and value else repr(value)}"
            for name, value in msgspec.structs.asdict(self).items()
        )
        return f"Settings({fields})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """What rich shows instead of the fields themselves."""
        return [
            (name, "***" if name in _SECRET_FIELDS and value else value)
            for name, value in msgspec.structs.asdict(self).items()
        ]


def _trusting(redis_url: str, ca_file: Path) -> str:
    """The Redis URL with the private authorities, unless it names some itself. redis-py trusts
    them beside those of the system."""
    parts = urlsplit(redis_url)
    if parts.scheme != "rediss" or "ssl_ca_certs" in parse_qs(parts.query):
        return redis_url
    option = f"ssl_ca_certs={quote(str(ca_file))}"
    return parts._replace(query="&".join(filter(None, [parts.query, option]))).geturl()


_REMEDIES = {
    "REDIS_URL": "write for example redis://127.0.0.1:6379/0",
    "ADMIN_TOKEN": f"make one with {MAKE_A_TOKEN}",
    "ENCRYPTION_KEYS": f"give those of the other parts; a new service makes one with {MAKE_A_KEY}",
}


_KNOWN = frozenset(
    (
        *_BY_VARIABLE,
        *(PREFIX + setting.name + SUFFIX for setting in SETTINGS if setting.secret),
        LISTEN_SECRET,
        LISTEN_SECRET + SUFFIX,
    )
)


def _is_unknown(variable: str) -> bool:
    return variable.upper().startswith(PREFIX) and variable not in _KNOWN


def _unknown(variable: str) -> str:
    name = variable.upper().removeprefix(PREFIX)
    if (plain := name.removesuffix(SUFFIX)) != name and PREFIX + plain in _BY_VARIABLE:
        return f"{variable} is no setting; only secrets are read from files: set {PREFIX}{plain}"
    known = sorted(one.removeprefix(PREFIX) for one in _KNOWN)
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {PREFIX}{near[0]}?" if near else f"known are {', '.join(_BY_VARIABLE)}"
    return f"{variable} is no setting; {remedy}"


def _contradictions(settings: Settings) -> list[str]:
    problems = []
    if settings.event_retention_seconds < RETRY_SPAN:
        problems.append(
            f"{PREFIX}EVENT_RETENTION_SECONDS is {settings.event_retention_seconds}, but retries "
            f"of a delivery take up to {RETRY_SPAN} seconds and would outlive the event's body; "
            f"give at least {RETRY_SPAN}"
        )
    if settings.metrics_token is not None and settings.metrics_token == settings.admin_token:
        problems.append(
            f"{PREFIX}METRICS_TOKEN is the admin token, which would let whoever reads the "
            f"metrics do everything; make another with {MAKE_A_TOKEN}"
        )
    return problems


def _listed(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n  ".join([f"{len(problems)} settings are not usable:", *problems])


def _text(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case tuple():
            return ",".join(_text(item) for item in value)
        case bytes():
            return base64.urlsafe_b64encode(value).decode()
        case _:
            return str(value)


def settings_table() -> str:
    """Every setting as a Markdown table, which is the README's."""
    rows = [
        f"| `{variable}` | {setting.kind} | {f'`{setting.default}`' if setting.default else '-'} "
        f"| {setting.meaning} |"
        for variable, setting in _BY_VARIABLE.items()
    ]
    return "\n".join(
        ["| variable | type | default | meaning |", "|---|---|---|---|", *rows],
    )
