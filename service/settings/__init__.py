"""The settings of the service, which it reads from environment variables."""

from service.settings.declarations import (
    MAX_INTEGRATIONS,
    MAX_SUBSCRIPTIONS,
    PREFIX,
    SETTINGS,
    settings_table,
)
from service.settings.parsers import KEY_BYTES
from service.settings.reading import RETRY_SPAN, Settings, listen_secret

__all__ = [
    "KEY_BYTES",
    "MAX_INTEGRATIONS",
    "MAX_SUBSCRIPTIONS",
    "PREFIX",
    "RETRY_SPAN",
    "SETTINGS",
    "Settings",
    "listen_secret",
    "settings_table",
]
