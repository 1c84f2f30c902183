"""The command line of chaos: `make chaos ARGS='--seconds 600 --seed 7'`."""

from __future__ import annotations

import argparse
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


def main() -> int:
    """Runs, judges and tells; 1 if something was seen that must not be."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="of trouble (default 600)")
    parser.add_argument("--seed", type=int, default=None, help="drawn if left out")
    parser.add_argument("--only", default="", help="actions with this word, as 'hostile'")
    parser.add_argument("--history", type=Path, help="where to keep what was seen")
    options = parser.parse_args()
    only = named(options.only) if options.only else ()
    if options.only and not only:
        parser.error(f"no action is called {options.only!r}")
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    click.echo(f"chaos: seed {seed}, {options.seconds:g} s")
    began = time.monotonic()

    def say(words: str) -> None:
        click.echo(f"[{time.monotonic() - began:6.1f}] {words}")

    with tempfile.TemporaryDirectory(prefix="coursewire-chaos-") as directory:
        chosen = Options(seed=seed, seconds=options.seconds, only=only)
        history = asyncio.run(run(chosen, Path(directory), say))
    if options.history is not None:
        history.save(options.history)
    return tell(check(history), seed, history.struck)


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
    sys.exit(main())
