"""Applies a file: plans every item, then shows the plan or applies it, and reports the results."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TextIO

from rich.text import Text

from service.commands import options
from service.commands.api_client import Remote, RemoteError
from service.commands.console import open_console, printable
from service.commands.manifest.manifest_file import read_manifest
from service.commands.manifest.plan import IDENTIFYING, Step, operation, plan
from service.commands.resources.call import pages
from service.commands.resources.rendering import cell, show_json
from service.domain.errors import CoursewireError

_SIGNS = {"create": ("+", "green"), "edit": ("~", "yellow"), "delete": ("-", "red")}


def apply(
    remote: Remote,
    text: str,
    environ: Mapping[str, str],
    *,
    dry_run: bool,
    prune: bool,
    secrets: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Brings the API to the state in a file. Raises CoursewireError if that fails for any item."""
    wanted = read_manifest(text, environ, IDENTIFYING)
    steps = [
        step
        for kind in IDENTIFYING
        if kind in wanted
        for step in plan(
            kind,
            wanted[kind],
            pages(remote, operation(kind, "list").path, {}, None)["items"],
            prune=prune,
            secrets=secrets,
        )
    ]
    deleted = [step for step in steps if step.action == "delete"]
    if deleted and not dry_run:
        names = ", ".join(f"{step.kind} {step.key} ({step.id})" for step in deleted)
        options.confirm(f"Delete {names}?", yes=yes)
    for step in steps:
        if not dry_run and step.error is None:
            _take(remote, step)
        if not as_json:
            _show(step, sys.stdout)
    if as_json:
        show_json({"dry_run": dry_run, "items": list(map(_document, steps))}, sys.stdout)
    else:
        sys.stdout.write(_summary(steps, dry_run=dry_run))
    if failed := sum(step.error is not None for step in steps):
        raise CoursewireError(f"{failed} of {len(steps)} items failed")


def _take(remote: Remote, step: Step) -> None:
    """Carries out a step. A failure becomes its error."""
    if step.action == "none":
        return
    asked = operation(step.kind, step.action)
    path = asked.path_of(dict.fromkeys(asked.arguments, step.id or ""))
    try:
        answer = remote.call(asked.method, path, step.body or None)
    except RemoteError as error:
        step.error = str(error)
        return
    if step.action == "create":
        step.id = answer["id"]


def _document(step: Step) -> dict[str, Any]:
    differences = {name: one._asdict() for name, one in step.differences.items()}
    return {
        "kind": step.kind,
        "key": step.key,
        "action": step.action,
        "id": step.id,
        "owner": step.owner,
        "differences": differences,
        "error": step.error,
    }


def _show(step: Step, out: TextIO) -> None:
    """Prints the changes of a step, if it has any."""
    console = open_console(out)
    sign, style = _SIGNS.get(step.action, (" ", ""))
    if step.action != "none" or step.error:
        name = f"{sign} {step.kind} {printable(step.key)}"
        about = ", ".join(filter(None, (step.id, step.owner and f"owner {step.owner}")))
        console.print(Text(name + (f" ({about})" if about else ""), style), soft_wrap=True)
    for field, (before, after) in step.differences.items():
        was = f"{cell(before)} -> " if step.action == "edit" else ""
        console.print(Text(f"    {printable(field)}: {was}{cell(after)}"), soft_wrap=True)
    if step.error:
        error = step.error.replace("\n", "\n  ")
        console.print(Text(f"  failed: {error}", "bold red"), soft_wrap=True)


def _summary(steps: list[Step], *, dry_run: bool) -> str:
    counts = {
        word: sum(step.action == action and step.error is None for step in steps)
        for action, word in (
            ("create", "created"),
            ("edit", "changed"),
            ("delete", "deleted"),
            ("none", "unchanged"),
        )
    }
    counts["failed"] = sum(step.error is not None for step in steps)
    said = ", ".join(f"{count} {word}" for word, count in counts.items())
    return f"{'Would be: ' if dry_run else ''}{said}\n"
