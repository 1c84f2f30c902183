"""Parses the address of a Redis server, and refuses every part that is not supported."""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

Scheme = Literal["redis", "rediss", "unix", "sentinel"]

DEFAULT_PORT: Final = 6379
MAX_DB: Final = 2**31 - 1

_SHAPE: Final = "write redis://HOST:PORT/DB"
_ENCODE: Final = "with / @ : # ? % of user and password percent-encoded"
_SENTINEL_SHAPE: Final = "write sentinel://HOST:PORT,HOST:PORT/0?service=NAME"
_HOST_NAME: Final = re.compile(r"(?:(?!-)[a-z0-9_-]{1,63}(?<!-)(?:\.|\.?$))+", re.IGNORECASE)
_ZONE: Final = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f-\xa0]")
_OPTION_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")


class RedisAddress(msgspec.Struct, frozen=True, kw_only=True):
    """The server's address and credentials. `options` are the parsed options of the URL, by their
    names in `OPTIONS`. With sentinels the address of the server is unknown: `sentinels` return it
    for the name `service`. A socket has a `path` instead of host and port.
    """

    scheme: Scheme
    host: str = ""
    port: int = DEFAULT_PORT
    path: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = None
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The address for people, without user and password."""
        if self.scheme == "unix":
            return self.path
        return ",".join(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            for host, port in self.sentinels or ((self.host, self.port),)
        )

    def __repr__(self) -> str:
        return f"RedisAddress({self.scheme}://{self.shown}/{self.db})"


# --- options -------------------------------------------------------------------------------


class Option(msgspec.Struct, frozen=True):
    """An option that a URL may have: its values, its schemes, and its parser."""

    takes: str
    schemes: tuple[Scheme, ...]
    read: Callable[[str], Any]


def _seconds(least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]{1,4}(?:\.[0-9]{1,3})?", text):
            raise ValueError
        seconds = float(text)
        if not least <= seconds <= most:
            raise ValueError
        return seconds

    return read


def _db(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) > MAX_DB:
        raise ValueError
    return int(text)


def _boolean(text: str) -> bool:
    return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
        text.lower()
    ]


def _always(*spellings: str) -> Callable[[str], None]:
    """Accepts only the value that applies in any case."""

    def read(text: str) -> None:
        if text.lower() not in spellings:
            raise ValueError

    return read


def _absolute_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError
    return text


def _text(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text


_ALL: Final[tuple[Scheme, ...]] = ("redis", "rediss", "unix", "sentinel")
_SCHEMES: Final[Mapping[str, Scheme]] = {scheme: scheme for scheme in _ALL}
_TLS: Final[tuple[Scheme, ...]] = ("rediss",)

OPTIONS: Final[Mapping[str, Option]] = {
    "db": Option(f"a number from 0 to {MAX_DB}", ("redis", "rediss", "unix"), _db),
    "service": Option("the name that the sentinels watch", ("sentinel",), _text),
    "socket_connect_timeout": Option("0.1 to 60 seconds", _ALL, _seconds(0.1, 60)),
    "socket_timeout": Option("1 to 60 seconds", _ALL, _seconds(1, 60)),
    "socket_keepalive": Option("true or false", ("redis", "rediss", "sentinel"), _boolean),
    "ssl_ca_certs": Option("the absolute path of a file", _TLS, _absolute_path),
    "ssl_certfile": Option("the absolute path of a file", _TLS, _absolute_path),
    "ssl_keyfile": Option("the absolute path of a file", _TLS, _absolute_path),
    "ssl_cert_reqs": Option(
        "required alone, because the certificate is always verified; name a private authority "
        "with ssl_ca_certs",
        _TLS,
        _always("required"),
    ),
    "ssl_check_hostname": Option(
        "true alone, because the name in the certificate is always verified",
        _TLS,
        _always("true", "1", "yes"),
    ),
}

_LOGIN_REMEDY: Final = "write USER:PASSWORD@ before the host"
_REMEDIES: Final[Mapping[str, str]] = {
    "username": _LOGIN_REMEDY,
    "password": _LOGIN_REMEDY,
    "host": _SHAPE,
    "port": _SHAPE,
    "path": "write unix:///path/to/redis.sock",
    "timeout": "remove it, or set socket_timeout",
}


def _options(parts: SplitResult, scheme: Scheme) -> dict[str, Any]:
    if not parts.query:
        return {}
    try:
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True, errors="strict")
    except (ValueError, UnicodeDecodeError):
        raise ValueError("has a part after ? that is not NAME=VALUE; remove it") from None
    read: dict[str, Any] = {}
    for name, text in pairs:
        option = OPTIONS.get(name)
        if option is None:
            raise ValueError(_unknown(name, scheme))
        if scheme not in option.schemes:
            tls = option.schemes == _TLS
            raise ValueError(
                f"has the option {name}, which {scheme}:// does not take; "
                f"{_tls_remedy(scheme) if tls else 'remove it'}"
            )
        if name in read:
            raise ValueError(f"has the option {name} more than once; give it once")
        try:
            read[name] = option.read(text)
        except (ValueError, KeyError):
            raise ValueError(f"has a wrong value for {name}, which takes {option.takes}") from None
    if "ssl_keyfile" in read and "ssl_certfile" not in read:
        raise ValueError("has the option ssl_keyfile without ssl_certfile; give both")
    return {name: value for name, value in read.items() if value is not None}


def _unknown(name: str, scheme: Scheme) -> str:
    supported = [one for one, option in OPTIONS.items() if scheme in option.schemes]
    if not _OPTION_NAME.fullmatch(name):  # it may be part of a password
        return f"has an option that is not supported; supported are {', '.join(supported)}"
    near = difflib.get_close_matches(name.lower(), supported, n=1, cutoff=0.8)
    if name.lower() in ("ssl", "tls"):
        remedy = _tls_remedy(scheme)
    elif (known := _REMEDIES.get(name.lower())) is not None:
        remedy = known
    else:
        remedy = f"write {near[0]} if you meant that" if near else "remove it"
    return (
        f"has the option {name}, which is not supported; {remedy}. "
        f"Supported are {', '.join(supported)}"
    )


def _tls_remedy(scheme: Scheme) -> str:
    if scheme in ("redis", "rediss"):
        return "for TLS, begin the URL with rediss://"
    return "connections through sentinels or a socket are not encrypted, so remove it"


# --- the address ---------------------------------------------------------------------------


def read_redis_url(text: str) -> RedisAddress:
    """The address in a URL. Raises ValueError with the fault and its remedy.

    Messages repeat nothing of the text except the name of an option, because a password with a
    slash in it may be anywhere.
    """
    if _UNPRINTABLE.search(text):
        raise ValueError(
            f"contains a blank or a control character; {_SHAPE}, {_ENCODE}, and blanks as %20"
        )
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError(f"is not a URL; {_SHAPE}, {_ENCODE}") from None
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or "://" not in text:
        raise ValueError(
            "is not a Redis address; it begins with redis://, rediss://, unix:// or sentinel://"
        )
    login, at, hosts = parts.netloc.rpartition("@")
    if not at:
        hosts = parts.netloc
    where = _place(scheme, parts, hosts)
    if "@" in f"{parts.path}?{parts.query}#{parts.fragment}" and scheme != "unix":
        raise ValueError(f"has an @ after its host; {_SHAPE}, {_ENCODE}")
    if parts.fragment or "#" in text:
        raise ValueError(f"has a part after #; {_SHAPE}, {_ENCODE}")
    options = _options(parts, scheme)
    db = options.pop("db", None)
    if scheme != "unix":
        if parts.path.strip("/") and db is not None:
            raise ValueError("gives the database twice, as /DB and as ?db=; give it once")
        db = db or _path_db(parts.path)
    service = options.pop("service", "")
    if scheme == "sentinel" and not service:
        raise ValueError(f"does not name the service the sentinels watch; {_SENTINEL_SHAPE}")
    user, _, password = login.partition(":")
    return RedisAddress(
        scheme=scheme,
        db=db or 0,
        username=_decoded(user) or None,
        password=_decoded(password) or None,
        service=service,
        options=options,
        **where,
    )


def _place(scheme: str, parts: SplitResult, hosts: str) -> dict[str, Any]:
    if scheme == "unix":
        if not parts.path.strip("/") or hosts:
            raise ValueError("names no socket; write unix:///path/to/redis.sock?db=0")
        return {"path": _decoded(parts.path)}
    if scheme == "sentinel":
        return {
            "sentinels": tuple(
                _sentinel(host, number) for number, host in enumerate(hosts.split(","), 1)
            )
        }
    if "," in hosts:
        raise ValueError(
            f"names several hosts; {_SHAPE}, or {_SENTINEL_SHAPE.removeprefix('write ')}"
        )
    host, port = _host_and_port(hosts, _SHAPE)
    return {"host": host, "port": DEFAULT_PORT if port is None else port}


def _sentinel(text: str, number: int) -> tuple[str, int]:
    try:
        host, port = _host_and_port(text, _SENTINEL_SHAPE)
    except ValueError as error:
        raise ValueError(f"lacks host or port of sentinel {number}, or it {error}") from None
    if port is None:
        raise ValueError(f"lacks host or port of sentinel {number}; {_SENTINEL_SHAPE}")
    return host, port


def _host_and_port(text: str, shape: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::(.*))?", text)
    if found is None or (text.count(":") > 1 and "[" not in text):
        raise ValueError(
            f"has a host or a port that cannot be parsed; {shape}, with an IPv6 address in "
            f"brackets, {_ENCODE}"
        )
    bracketed, name, port = found.groups()
    if not (bracketed or name):
        raise ValueError(f"has no host; {shape}, {_ENCODE}")
    host = _address(bracketed) if bracketed is not None else _name(name)
    if host is None:
        raise ValueError(
            f"has a host that is neither an address nor a host name; {shape}, {_ENCODE}"
        )
    if port is None:
        return host, None
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"has a port that is not a number from 1 to 65535; {shape}, {_ENCODE}")
    return host, int(port)


def _address(text: str) -> str | None:
    """An IPv6 address, whose zone may be written with % or %25."""
    address, _, zone = text.replace("%25", "%", 1).partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return None
    if "%" not in text:
        return address
    return f"{address}%{zone}" if _ZONE.fullmatch(zone) else None


def _name(text: str) -> str | None:
    if len(text) > 253 or not _HOST_NAME.fullmatch(text):
        return None
    if text.removesuffix(".").rpartition(".")[2].isdecimal():  # an IPv4 address, or a mistyped one
        try:
            ipaddress.IPv4Address(text)
        except ValueError:
            return None
    return text.lower()


def _path_db(path: str) -> int:
    try:
        return _db(path.removeprefix("/")) if path not in ("", "/") else 0
    except ValueError:
        raise ValueError(
            f"does not end in a database number from 0 to {MAX_DB}; write for example .../0, "
            f"{_ENCODE}"
        ) from None


def _decoded(text: str) -> str:
    if _BAD_ESCAPE.search(text):
        raise ValueError(f"has a % that two hexadecimal digits do not follow; {_SHAPE}, {_ENCODE}")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(
            f"has percent-encoded bytes that are not UTF-8; {_SHAPE}, {_ENCODE}"
        ) from None
