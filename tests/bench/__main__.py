"""The command line of the benchmarks: which of them run, and how large."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import uvloop

from service.logs import configure

_BENCHMARKS = (
    *("sweep", "sweepers", "growth", "memory", "catalogue", "delivery", "isolation"),
    *("scheduling", "start", "api", "console", "listeners"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the named benchmark, or each in turn with its defaults; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        failures = [_alone(name) for name in _BENCHMARKS]  # of all, whatever becomes of one
        return int(any(failures))
    if arguments[0] not in _BENCHMARKS:
        _overview().parse_args(arguments)
        return 0
    benchmark = _load(arguments[0])
    parser = argparse.ArgumentParser(
        prog=f"make bench: {arguments[0]}", description=_summary(benchmark)
    )
    benchmark.add_options(parser)
    options = parser.parse_args(arguments[1:])
    configure("console", "warning", "bench")
    # The loop that worker processes run on.
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(benchmark.run(options))
    return 0


def _alone(name: str) -> int:
    """Runs one in a process of its own, which holds nothing of the others: the garbage collector's
    work, which some measure, grows with all that is loaded."""
    return subprocess.run([sys.executable, "-m", "tests.bench", name], check=False).returncode


def _load(name: str) -> Any:
    return import_module(f"tests.bench.{name}")


def _summary(benchmark: Any) -> str:
    return str(benchmark.__doc__ or "").partition("\n")[0]


def _overview() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench", description="Measures; without a name everything in turn."
    )
    names = parser.add_subparsers(metavar="NAME")
    for name in _BENCHMARKS:
        names.add_parser(name, help=_summary(_load(name)))
    return parser


if __name__ == "__main__":
    sys.exit(main())
