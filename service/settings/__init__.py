"""The settings of the service, which it reads from environment variables."""

from service.settings.declarations import (
    MAX_INTEGRATIONS,
    MAX_SUBSCRIPTIONS,
    PREFIX,
    SETTINGS,
)
from service.settings.parsers import KEY_BYTES
from service.settings.reading import (
    CLIENT_TOKEN,
    CLIENT_URL,
    LISTEN_SECRET,
    RETRY_SPAN,
    Settings,
    command_secret,
)

__all__ = [
    "CLIENT_TOKEN",
    "CLIENT_URL",
    "KEY_BYTES",
    "LISTEN_SECRET",
    "MAX_INTEGRATIONS",
    "MAX_SUBSCRIPTIONS",
    "PREFIX",
    "RETRY_SPAN",
    "SETTINGS",
    "Settings",
    "command_secret",
]
