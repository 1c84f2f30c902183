"""Reads the settings from the environment, and refuses them as a whole if any is wrong."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qs, quote, urlsplit

import msgspec

from service.certificate_authorities import authority_faults
from service.domain.delivery.retry_schedule import DEFAULT_SCHEDULE, JITTER
from service.domain.errors import SettingsError
from service.secret_files import SUFFIX, read_secret_file
from service.settings.declarations import PREFIX, SETTINGS, Values, as_text
from service.settings.parsers import MAKE_A_KEY, MAKE_A_TOKEN

# Variables that commands read besides the settings, each from the variable or from the file that it
# names.
LISTEN_SECRET = "COURSEWIRE_LISTEN_SECRET"  # noqa: S105 - the name of a variable
CLIENT_TOKEN = "COURSEWIRE_TOKEN"  # noqa: S105 - the name of a variable
CLIENT_URL = "COURSEWIRE_URL"  # of the API that commands call

# The longest time that the default retries of one delivery take, and an hour for the attempts and
# the queueing between them; bodies must outlive it. Seconds.
RETRY_SPAN = math.ceil(sum(DEFAULT_SCHEDULE) * (1 + JITTER)) + 3600

_VARIABLES = tuple(setting.variable for setting in SETTINGS)
_SECRETS = frozenset(setting.variable for setting in SETTINGS if setting.secret)
_SECRET_FIELDS = frozenset(setting.field for setting in SETTINGS if setting.secret)
_KNOWN = frozenset(
    (
        *_VARIABLES,
        *(secret + SUFFIX for secret in _SECRETS),
        LISTEN_SECRET,
        LISTEN_SECRET + SUFFIX,
        CLIENT_TOKEN,
        CLIENT_TOKEN + SUFFIX,
        CLIENT_URL,
    )
)
_REMEDIES = {
    "REDIS_URL": "write for example redis://127.0.0.1:6379/0, or start "
    "`coursewire up`, which embeds a server",
    "ADMIN_TOKEN": f"make one with {MAKE_A_TOKEN}",
    "ENCRYPTION_KEYS": f"give the keys of the other parts, or generate one with {MAKE_A_KEY}",
}


class Settings(Values, frozen=True, kw_only=True):
    """The checked settings of the environment; `Values` explains each field.

    Secrets (`redis_url`, `egress_proxy`, tokens, `encryption_keys`) never appear in its `repr`.
    """

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """The settings in `environ`; a variable of blanks counts as unset.

        Every secret may be in a file instead, whose path is in the variable with `_FILE` at the end
        of its name. `SSL_CERT_FILE` and `SSL_CERT_DIR` are checked too. Raises SettingsError with
        every problem at once: the variable, its fault, and the remedy.
        """
        problems = [_unknown(name) for name in sorted(environ) if _is_unknown(name)]
        values: dict[str, Any] = {}
        for setting in SETTINGS:
            try:
                source, text = _given(environ, setting.variable, secret=setting.secret)
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
        """The variables that `from_env` would convert to these settings."""
        defaults = Settings()
        return {
            setting.variable: as_text(value)
            for setting in SETTINGS
            if (value := getattr(self, setting.field)) != getattr(defaults, setting.field)
        }

    def require(self, *names: str) -> None:
        """Raise SettingsError for each of the variables `names` (without prefix) that is unset. The
        caller decides which ones its process needs."""
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
        """The fields for rich, which would otherwise print them itself."""
        return [
            (name, "***" if name in _SECRET_FIELDS and value else value)
            for name, value in msgspec.structs.asdict(self).items()
        ]


def _given(environ: Mapping[str, str], variable: str, *, secret: bool) -> tuple[str, str]:
    """The value of a variable, or of the file that it names, and its source; empty if unset."""
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


def command_secret(environ: Mapping[str, str], variable: str) -> str | None:
    """A command's secret from the environment, or from the file that is named there; None if unset.
    Raises SettingsError."""
    try:
        return _given(environ, variable, secret=True)[1] or None
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _trusting(redis_url: str, ca_file: Path) -> str:
    """The Redis URL with the private authorities, unless it names some itself. redis-py adds them
    to those of the system."""
    parts = urlsplit(redis_url)
    if parts.scheme != "rediss" or "ssl_ca_certs" in parse_qs(parts.query):
        return redis_url
    option = f"ssl_ca_certs={quote(str(ca_file))}"
    return parts._replace(query="&".join(filter(None, [parts.query, option]))).geturl()


def _is_unknown(variable: str) -> bool:
    return variable.upper().startswith(PREFIX) and variable not in _KNOWN


def _unknown(variable: str) -> str:
    name = variable.upper().removeprefix(PREFIX)
    if (plain := name.removesuffix(SUFFIX)) != name and PREFIX + plain in _VARIABLES:
        return f"{variable} is not a setting; only secrets are read from files: set {PREFIX}{plain}"
    known = sorted(one.removeprefix(PREFIX) for one in _KNOWN)
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {PREFIX}{near[0]}?" if near else f"known are {', '.join(_VARIABLES)}"
    return f"{variable} is not a setting; {remedy}"


def _contradictions(settings: Settings) -> list[str]:
    problems = []
    if settings.event_retention_seconds < RETRY_SPAN:
        problems.append(
            f"{PREFIX}EVENT_RETENTION_SECONDS is {settings.event_retention_seconds}, but retries "
            f"of a delivery take up to {RETRY_SPAN} seconds and would outlive the event's body; "
            f"give at least {RETRY_SPAN}"
        )
    if settings.metrics_token is not None and settings.metrics_token in (
        settings.admin_token,
        settings.previous_admin_token,
    ):
        problems.append(
            f"{PREFIX}METRICS_TOKEN is the admin token, which would give every reader of "
            f"the metrics all rights; make another with {MAKE_A_TOKEN}"
        )
    return problems


def _listed(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return "\n  ".join([f"{len(problems)} settings cannot be used:", *problems])
