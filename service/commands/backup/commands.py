"""The commands `coursewire backup` and `coursewire restore`."""

# ruff: noqa: PLC0415 - parts are imported inside their commands, so that --help is instant

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

_FILE: Final = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@click.command()
@_FILE
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def backup(*, file: Path, force: bool) -> None:
    """Write all data in Redis, as of one moment, to FILE while the service runs."""
    if file.exists() and not force:
        raise click.UsageError(f"{file} exists: give --force to replace it, or another name")
    if not file.absolute().parent.is_dir():
        raise click.UsageError(f"The directory {file.parent} does not exist: create it first")
    from service import logs
    from service.commands.backup.run import backup as perform
    from service.settings import Settings

    logs.configure("console", "warning")
    click.echo(perform(Settings.from_env(os.environ), file))


@click.command()
@_FILE
@click.option("--replace", is_flag=True, help="First delete the installation in this Redis.")
def restore(*, file: Path, replace: bool) -> None:
    """Write the data in FILE into the Redis of a stopped service."""
    from service import logs
    from service.commands.backup.run import restore as perform
    from service.settings import Settings

    logs.configure("console", "warning")
    click.echo(perform(Settings.from_env(os.environ), file, replace=replace))
