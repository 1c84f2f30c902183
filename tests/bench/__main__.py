"""The command line of the benchmarks: which of them run, and how large."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence

import uvloop

from service.logs import configure
from tests.bench import (
    api,
    catalogue,
    delivery,
    isolation,
    listeners,
    memory,
    scheduling,
    start,
    sweep,
    sweepers,
)

_BENCHMARKS = {
    "sweep": sweep,
    "sweepers": sweepers,
    "memory": memory,
    "catalogue": catalogue,
    "delivery": delivery,
    "scheduling": scheduling,
    "start": start,
    "isolation": isolation,
    "listeners": listeners,
    "api": api,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the named benchmark, or each in turn with its defaults."""
    configure("console", "warning", "bench")
    options = _parser().parse_args(argv)
    for name in [options.benchmark] if options.benchmark else _BENCHMARKS:
        chosen = options if options.benchmark else _parser().parse_args([name])
        # The loop that worker processes run on.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_BENCHMARKS[name].run(chosen))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench", description="Measures; without a name everything in turn."
    )
    names = parser.add_subparsers(dest="benchmark")
    for name, benchmark in _BENCHMARKS.items():
        summary = (benchmark.__doc__ or "").partition("\n")[0]
        benchmark.add_options(names.add_parser(name, help=summary, description=summary))
    return parser


if __name__ == "__main__":
    main()
