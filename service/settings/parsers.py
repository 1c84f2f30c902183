"""Parsers of settings. Each raises ValueError with the fault and its remedy."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from pathlib import Path

from service.certificate_authorities import certificates_fault, client_certificate_fault
from service.domain.egress.certificates import Unusable, read_authorities
from service.domain.egress.routes import read_egress_proxy, read_pattern
from service.domain.hosts import read_network
from service.redis_url import read_redis_url

MIN_TOKEN_LENGTH = 16
MAX_TOKEN_LENGTH = 1_024  # a token is sent in a header
KEY_BYTES = 32
MAKE_A_TOKEN = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"  # noqa: S105 - how to make one
MAKE_A_KEY = (
    "python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"
)

_HOST_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_INSTANCE = re.compile(r"[A-Za-z0-9._:@-]{1,64}")
_ZONE = re.compile(r"[A-Za-z0-9_.-]{1,32}")
_SHOWN = 60  # characters of a wrong value that a message repeats


def redis_url(text: str) -> str:
    """The address of Redis, after checking that its certificates and keys can be read."""
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


def host(text: str) -> str:
    """An IP address or a host name, in lower case."""
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


def path(text: str) -> Path:
    """A path, `~` expanded."""
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
        and not labels[-1].isdecimal()  # otherwise it would be a mistyped IPv4 address
    )


def whole_number(least: int, most: int, unit: str) -> Callable[[str], int]:
    """Returns the parser of a whole number within bounds."""

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


def token(text: str) -> str:
    """A bearer token that is long enough and fits into a header."""
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


def instance(text: str) -> str:
    """A process name that no other process has."""
    if not _INSTANCE.fullmatch(text):
        raise ValueError(
            f"{_shown(text)} is not up to 64 letters, digits and any of ._:@-; use for example the "
            "host name and a number"
        )
    return text


def keys(text: str) -> tuple[bytes, ...]:
    """Encryption keys, separated by commas."""
    read: list[bytes] = []
    for number, part in enumerate((part.strip() for part in text.split(",")), 1):
        try:
            # The padding may be missing, because some tools that generate such keys leave it out.
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
        if key in read:
            raise ValueError(f"key {number} repeats key {read.index(key) + 1}; remove it")
        read.append(key)
    return tuple(read)


def targets(text: str) -> tuple[str, ...]:
    """CIDRs, addresses and host names, separated by commas."""
    return tuple(_target(part.strip().lower()) for part in text.split(",") if part.strip())


def _target(text: str) -> str:
    network = read_network(text, _shown(text))
    if network is None and not _is_host_name(text):
        raise ValueError(
            f"{_shown(text)} is neither an address, a CIDR nor a host name; "
            "write for example 10.0.0.0/8,hooks.internal"
        )
    return network or text


def list_of(read: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    """Returns the parser of a list whose parts `read` parses; duplicates are removed."""

    def parse(text: str) -> tuple[str, ...]:
        parts = (part.strip() for part in text.split(","))
        return tuple(dict.fromkeys(read(part) for part in parts if part))

    return parse


def egress_proxy(text: str) -> str:
    """The URL of a forward proxy."""
    read_egress_proxy(text)
    return text


def patterns(text: str) -> tuple[str, ...]:
    """Targets that are reached without the proxy, separated by commas."""
    entries = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for entry in entries:
        read_pattern(entry)
    return entries


def authorities(text: str) -> Path:
    """The path of a PEM bundle that can be read."""
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


def boolean(text: str) -> bool:
    """True or false."""
    match text.lower():
        case "true" | "1" | "yes" | "on":
            return True
        case "false" | "0" | "no" | "off":
            return False
    raise ValueError(f"{_shown(text)} is neither true nor false; write one of these")


def one_of(*choices: str) -> Callable[[str], str]:
    """Returns the parser of one of several words."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"{_shown(text)} is not one of {', '.join(choices)}")
        return text.lower()

    return parse
