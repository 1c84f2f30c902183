"""`coursewire api-key`: the API keys of a running service, over its API."""

# ruff: noqa: PLC0415 - what only a key's own command needs is imported there: --help is instant

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from service.commands import options

if TYPE_CHECKING:
    from service.commands.api_client import Remote

_PATH = "/v1/api-keys"


class Keyring:
    """The keys of a running service. Its methods raise RemoteError."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def create(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """A new key with its token."""
        created: dict[str, Any] = self._remote.call("POST", _PATH, wanted)
        return created

    def list(self) -> Iterator[dict[str, Any]]:
        """The keys that have not been revoked."""
        page = self._remote.call("GET", _PATH)
        yield from page["items"]
        while page["next"] is not None:
            page = self._remote.call("GET", f"{_PATH}?after={page['next']}")
            yield from page["items"]

    def rotate(self, key_id: str) -> dict[str, Any]:
        """The key with a new token."""
        rotated: dict[str, Any] = self._remote.call("POST", f"{_of(key_id)}/token/rotate")
        return rotated

    def revoke(self, key_id: str) -> None:
        """Revokes a key."""
        self._remote.call("DELETE", _of(key_id))


def _of(key_id: str) -> str:
    return f"{_PATH}/{quote(key_id, safe='')}"


@click.group("api-key")
@options.URL
@click.pass_context
def api_key(context: click.Context, url: str | None) -> None:
    """Create, list, rotate and revoke API keys of a running service, with its admin token."""
    from service.commands.api_client import Remote
    from service.settings import Settings

    if not _helping(context):
        context.obj = Keyring(Remote(Settings.from_env(os.environ), url))


def _helping(context: click.Context) -> bool:
    """Whether a subcommand is only going to explain itself."""
    names = context.help_option_names
    return any(argument in names for argument in sys.argv[1:])


@api_key.command()
@click.option("--name", required=True, help="What people call it.")
@click.option(
    "--scope", required=True, type=click.Choice(["admin", "subscriber", "read", "metrics"])
)
@click.option(
    "--integration",
    "integrations",
    multiple=True,
    metavar="ID",
    help="Of a subscriber: an integration whose course events it may see; may be repeated.",
)
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME=VALUE",
    help="Of a subscriber: it may see course events that carry all labels given; may be repeated.",
)
@click.option("--expires-at", metavar="TIME", help="Such as 2027-01-01T00:00:00Z; else never.")
@click.pass_obj
def create(
    keyring: Keyring,
    *,
    name: str,
    scope: str,
    integrations: tuple[str, ...],
    labels: tuple[str, ...],
    expires_at: str | None,
) -> None:
    """Create a key and print its token, which cannot be shown again."""
    pairs = dict(label.partition("=")[::2] for label in labels)
    given = {"integration_ids": integrations, "labels": pairs, "expires_at": expires_at}
    body = {"name": name, "scope": scope} | {key: one for key, one in given.items() if one}
    made = keyring.create(body)
    click.echo(f"{made['id']}, whose token is shown this once:", err=True)
    click.echo(made["token"])


@api_key.command("list")
@click.pass_obj
def list_(keyring: Keyring) -> None:
    """List the keys that have not been revoked."""
    for one in keyring.list():
        grants = [
            *(one["integration_ids"] or ()),
            *(f"{name}={value}" for name, value in (one["labels"] or {}).items()),
        ]
        click.echo(
            "  ".join(
                (
                    one["id"],
                    one["scope"].ljust(10),
                    f"created {one['created_at']}",
                    f"expires {one['expires_at'] or 'never'}",
                    f"used {one['last_used_at'] or 'never'}",
                    one["name"],
                    ",".join(grants),
                )
            ).rstrip()
        )


@api_key.command()
@click.argument("key_id")
@click.pass_obj
def rotate(keyring: Keyring, key_id: str) -> None:
    """Give a key a new token and print it; the old one opens nothing any more."""
    click.echo(keyring.rotate(key_id)["token"])


@api_key.command()
@click.argument("key_id")
@click.pass_obj
def revoke(keyring: Keyring, key_id: str) -> None:
    """Revoke a key: its token opens nothing any more, and its subscriptions get no more events."""
    keyring.revoke(key_id)
    click.echo(f"revoked {key_id}", err=True)
