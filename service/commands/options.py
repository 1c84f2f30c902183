"""Options that several commands share."""

# ruff: noqa: PLC0415 - what only a call needs is imported there, so that --help is instant

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Container
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

if TYPE_CHECKING:
    from service.commands.api_client import Remote

Option = Callable[[Any], Any]

JSON: Final[Option] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
HOST: Final[Option] = click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on."
)


def _keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """Passes an option on to every command below the one that it was given to."""
    if value is not None:
        context.meta[f"coursewire.{parameter.name}"] = value


_REMOTE: Final[dict[str, dict[str, Any]]] = {
    "--url": {
        "metavar": "URL",
        "help": "The URL of the API. If left out: COURSEWIRE_URL, the address that `coursewire "
        "up` keeps in COURSEWIRE_DATA_DIR, or COURSEWIRE_HOST and COURSEWIRE_PORT.",
    },
    "--token-file": {
        "metavar": "FILE",
        "type": click.Path(exists=True, dir_okay=False),
        "help": "The file that holds the token. If left out: COURSEWIRE_TOKEN or "
        "COURSEWIRE_TOKEN_FILE, COURSEWIRE_ADMIN_TOKEN, or the token that `coursewire up` made.",
    },
}


def remote_options(taken: Container[str] = ()) -> list[click.Parameter]:
    """The options that select the API and the token; `connect` reads them. Names in `taken` are
    left out."""
    return [
        click.Option([flag], expose_value=False, callback=_keep, **said)
        for flag, said in _REMOTE.items()
        if flag[2:] not in taken
    ]


def remote(function: Any) -> Any:
    """A decorator that adds the options that select the API and the token."""
    for flag, said in reversed(_REMOTE.items()):
        function = click.option(flag, expose_value=False, callback=_keep, **said)(function)
    return function


def asks_api(command: click.Command) -> bool:
    """Whether a command has the options of `remote`."""
    return any(one.name == "token_file" for one in command.params)


def connect(context: click.Context) -> Remote:
    """The API that `remote` and the environment select. Raises SettingsError."""
    import httpx

    from service.commands.api_client import Remote
    from service.domain.errors import SettingsError
    from service.secret_files import read_secret_file
    from service.settings import CLIENT_TOKEN, CLIENT_URL, Settings, command_secret

    if (file := context.meta.get("coursewire.token_file")) is None:
        token = command_secret(os.environ, CLIENT_TOKEN)
    else:
        try:
            token = read_secret_file(str(Path(file).absolute())).strip()
        except ValueError as error:
            raise SettingsError(f"--token-file {error}") from None
    return Remote(
        Settings.from_env(os.environ),
        context.meta.get("coursewire.url") or os.environ.get(CLIENT_URL),
        token,
        context.find_object(httpx.BaseTransport),
    )


def on_terminal(stream: TextIO) -> bool:
    """Whether the output, or the input, is a terminal."""
    return stream.isatty()


def confirm(question: str, *, yes: bool) -> None:
    """Asks on a terminal unless `yes` is set. Raises UsageError if it is not a terminal."""
    from service.domain.errors import CoursewireError

    if yes:
        return
    if not on_terminal(sys.stdin):
        raise click.UsageError(f"{question} The input is not a terminal: give --yes")
    if not click.confirm(question, err=True):
        raise CoursewireError("nothing was changed")


def yes(also: str = "") -> click.Option:
    """The option that answers `confirm`; `also` names a requirement."""
    return click.Option(["--yes", "-y"], is_flag=True, help=f"Do not ask for confirmation{also}.")


def port(default: int) -> Option:
    """The address of a command's listener."""
    return click.option(
        "--port",
        default=default,
        show_default=True,
        type=click.IntRange(0, 65535),
        help="The port to listen on; 0 selects a free port.",
    )
