"""`python -m service.healthcheck`: checks that the API of this container runs.

It reads the settings that the API reads, so it follows COURSEWIRE_HOST and COURSEWIRE_PORT. It uses
no proxy, and loads little, because it runs every few seconds.
"""

from __future__ import annotations

import http.client
import os
import sys

from service.domain.errors import SettingsError
from service.domain.hosts import in_url, reachable
from service.settings import PREFIX, Settings

SECONDS = 4.0


def main() -> int:
    """Returns 0 if the API answers /healthz with 200; otherwise prints the reason and returns 1."""
    try:
        settings = Settings.from_env(os.environ)
    except SettingsError as error:
        return _unhealthy(str(error))
    if not settings.port:
        return _unhealthy(f"{PREFIX}PORT is 0, so the port is unknown here; give a fixed one")
    host = reachable(settings.host)
    url = f"http://{in_url(host)}:{settings.port}/healthz"
    connection = http.client.HTTPConnection(host, settings.port, timeout=SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return _unhealthy(f"{url} does not answer: {str(error) or type(error).__name__}")
    finally:
        connection.close()
    return 0 if status == http.HTTPStatus.OK else _unhealthy(f"{url} answers {status}")


def _unhealthy(reason: str) -> int:
    sys.stderr.write(f"coursewire: {reason}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
