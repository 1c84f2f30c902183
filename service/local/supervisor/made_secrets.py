"""Secrets that the settings leave out: generated once, and kept in the data directory."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path

from service.domain.errors import SettingsError, StartError
from service.local import embedded_valkey as embedded
from service.local.data_directory import ADMIN_TOKEN_FILE, ENCRYPTION_KEYS_FILE, DataDirectory
from service.logs import get_logger
from service.settings import KEY_BYTES, PREFIX, Settings

_log = get_logger("supervisor")


def complete_secrets(settings: Settings, data: DataDirectory) -> tuple[Settings, Path | None]:
    """The settings with every secret, and the file of the admin token, None if the settings have
    it.

    Raises StartError if a secret was lost or cannot be used.
    """
    environment = settings.to_environ()
    token_file: Path | None = None
    if not settings.encryption_keys:
        if embedded.has_data(data.path) and not (data.path / ENCRYPTION_KEYS_FILE).exists():
            raise StartError(
                f"the data in {data.path} was encrypted with keys that are neither in "
                f"{ENCRYPTION_KEYS_FILE} there nor in {PREFIX}ENCRYPTION_KEYS; "
                "set that to the keys used before"
            )
        environment[f"{PREFIX}ENCRYPTION_KEYS"] = _logged(
            data.secret(ENCRYPTION_KEYS_FILE, _new_key)
        )
    if settings.admin_token is None:
        environment[f"{PREFIX}ADMIN_TOKEN"] = _logged(
            data.secret(ADMIN_TOKEN_FILE, lambda: secrets.token_urlsafe(32))
        )
        token_file = data.path / ADMIN_TOKEN_FILE
    try:
        return Settings.from_env(environment), token_file
    except SettingsError as error:
        raise StartError(f"a secret in {data.path} is not usable: {error}") from error


def _logged(secret: tuple[str, str | None]) -> str:
    text, remark = secret
    if remark is not None:
        _log.info(remark)
    return text


def _new_key() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()
