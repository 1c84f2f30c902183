"""The command line of chaos: `make chaos ARGS='--seconds 600 --seed 7'`."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.chaos.checker import MUST_BE_ZERO, Report, check
from tests.chaos.plan import named
from tests.chaos.run import Options, run


@click.command
@click.option("--seconds", default=600.0, show_default=True, help="of trouble")
@click.option("--seed", type=int, help="drawn if left out")
@click.option("--only", help="actions with this word, as 'hostile'")
@click.option("--history", "kept", type=Path, help="where to keep what was seen")
def main(seconds: float, seed: int | None, only: str | None, kept: Path | None) -> None:
    """Runs, judges and tells; 1 if something was seen that must not be."""
    actions = named(only) if only else ()
    if only and not actions:
        raise click.UsageError(f"no action is called {only!r}")
    seed = random.randrange(1_000_000) if seed is None else seed
    click.echo(f"chaos: seed {seed}, {seconds:g} s")
    began = time.monotonic()

    def say(words: str) -> None:
        click.echo(f"[{time.monotonic() - began:6.1f}] {words}")

    with tempfile.TemporaryDirectory(prefix="coursewire-chaos-") as directory:
        chosen = Options(seed=seed, seconds=seconds, only=actions)
        history = asyncio.run(run(chosen, Path(directory), say))
    if kept is not None:
        history.save(kept)
    sys.exit(tell(check(history), seed, history.struck))


def tell(report: Report, seed: int, struck: dict[str, int]) -> int:
    """Prints the counts, for people and, as the last line, as JSON; `struck` counts what hostile
    peers did."""
    for complaint in report.complaints:
        click.echo(complaint)
    for name, count in report.summary().items():
        wrong = "  <- must be 0" if name in MUST_BE_ZERO and count else ""
        click.echo(f"{name:>16} {count:>9,}{wrong}")
    for name, count in sorted(struck.items()):
        click.echo(f"{name:>16} {count:>9,}  struck")
    click.echo(json.dumps({"seed": seed, **report.summary(), "struck": struck}))
    return 0 if report.sound else 1


if __name__ == "__main__":
    main(prog_name="make chaos")
