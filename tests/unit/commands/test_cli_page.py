"""The README and the pages of docs/: every command that they show is one."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path

import click
import pytest

from service.cli import coursewire
from service.commands.manifest.manifest_file import read_manifest
from service.commands.manifest.plan import IDENTIFYING, operation
from service.commands.resources.declarations import RESOURCES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/cli.md").read_text()
SHELL = re.compile(r"```sh\n(.*?)```", re.DOTALL)
CAPTURED = re.compile(r"\w+=\$\((.*)\)")
PAGES = ("getting-started", "receiving-events", "catching-up", "access", "api", "cli")


def commands(text: str) -> list[list[str]]:
    """The arguments of each `coursewire` in blocks of shell."""
    lines = "\n".join(SHELL.findall(text)).replace("\\\n", " ").splitlines()
    calls = [CAPTURED.sub(r"\1", line.strip()).partition(" >")[0] for line in lines]
    return [
        shlex.split(call, comments=True)[1:] for call in calls if call.startswith("coursewire ")
    ]


SHOWN = [
    *commands((ROOT / "README.md").read_text()),
    *(call for page in PAGES for call in commands((ROOT / f"docs/{page}.md").read_text())),
    *commands("".join(f"```sh\n{one.examples}\n```" for one in RESOURCES.values())),
]


@pytest.mark.parametrize("arguments", SHOWN, ids=" ".join)
def test_every_command_that_is_shown_is_one(arguments, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("kombo-key.txt", "new-key.txt", "key.txt", "coursewire.yaml"):
        (tmp_path / name).write_text("x")
    command: click.Command = coursewire
    with contextlib.ExitStack() as opened:
        context = opened.enter_context(command.make_context("coursewire", list(arguments)))
        while isinstance(command, click.Group):
            rest = [*context._protected_args, *context.args]  # noqa: SLF001 - as click does
            _, command, rest = command.resolve_command(context, rest)
            context = opened.enter_context(command.make_context(command.name, rest, parent=context))


def test_the_file_that_is_shown_can_be_applied():
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    found = read_manifest(text, {"KOMBO_KEY": "k", "SEARCH_TOKEN": "t"}, IDENTIFYING)
    for kind in IDENTIFYING:
        fields = operation(kind, "create").body
        for item in found[kind]:
            assert set(item) <= set(fields)
            assert {name for name, one in fields.items() if one.required} <= set(item)
