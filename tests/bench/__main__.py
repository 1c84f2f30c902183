"""The command line of the benchmarks: which of them run, and how large."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import click


class _Benchmarks(click.Group):
    """Loads a module where its benchmark is asked for: the garbage collector's work, which some
    measure, grows with all that is loaded."""

    names = (
        *("sweep", "edits", "sweepers", "growth", "memory", "catalogue", "delivery", "concurrency"),
        *("isolation", "scheduling", "start", "api", "console", "listeners", "senders"),
    )

    def list_commands(self, context: click.Context) -> list[str]:
        return [*self.names, "scale"]

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        known = name in (*self.names, "scale")  # which takes hours, and runs only if it is named
        return import_module(f"tests.bench.{name}").run if known else None


@click.command(cls=_Benchmarks, invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Measures; without a name everything but `scale` in turn, each in a process of its own."""
    if context.invoked_subcommand is None:
        command = [sys.executable, "-m", "tests.bench"]
        # All run, whatever becomes of one.
        failed = [subprocess.run([*command, name], check=False).returncode for name in main.names]
        context.exit(int(any(failed)))


if __name__ == "__main__":
    main(prog_name="make bench")
