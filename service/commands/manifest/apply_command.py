"""The `apply` command and its options."""

# ruff: noqa: PLC0415 - what only a call needs is imported there, so that --help is instant

from __future__ import annotations

import os
import sys
from typing import TextIO

import click

from service.commands import options

_EXAMPLE = """\b
integrations:
  - external_id: tenant-42
    name: Workday of Acme
    base_url: https://api.kombo.dev/v1
    api_key: ${KOMBO_KEY}
    upstream_id: workday:...
subscriptions:
  - description: search index
    url: https://example.com/webhooks
    headers: {authorization: "Bearer ${SEARCH_TOKEN}"}
"""


@click.command(epilog=_EXAMPLE)
@click.option(
    "--file",
    "-f",
    required=True,
    type=click.File(encoding="utf-8"),
    help="YAML with lists of integrations and subscriptions; - is standard input.",
)
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option(
    "--prune",
    is_flag=True,
    help="Also delete resources that the file does not name, of each kind that the file lists: "
    "integrations with an external_id, and subscriptions of the operator with a description.",
)
@click.option(
    "--resend-secrets",
    is_flag=True,
    help=(
        "Send headers and client certificates again, because the API does not return their values."
    ),
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@options.JSON
@options.remote
@click.pass_context
def apply(
    context: click.Context,
    *,
    file: TextIO,
    dry_run: bool,
    prune: bool,
    resend_secrets: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Bring integrations and subscriptions to the state in a file.

    The file is YAML, as below. An integration is identified by its external_id, a subscription by
    its description. Items have the fields that `create --help` lists; fields that an item leaves
    out stay as they are. ${NAME} stands for the environment variable NAME. Each item is applied by
    itself: if one fails, the others are applied, and the exit code is 1.
    """
    from service.commands.manifest.apply import apply as run

    run(
        options.connect(context),
        file.read(),
        os.environ,
        dry_run=dry_run,
        prune=prune,
        secrets=resend_secrets,
        yes=yes,
        as_json=as_json or not options.on_terminal(sys.stdout),
    )
