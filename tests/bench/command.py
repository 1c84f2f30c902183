"""The command of a benchmark. A module declares it above its `run`, and is named in `__main__`:

    @benchmark
    @option("--rounds", default=5, help="of each")
    @option("--workers", type=Several(int), default=[1, 2])
    async def run(options: Options) -> None:

`make bench ARGS='NAME --workers 1 2 4'` then sets `options.workers`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from inspect import getmodule
from types import SimpleNamespace as Options
from typing import Any

import click
import uvloop

from service.logs import configure

option = partial(click.option, show_default=True)


class Several(click.ParamType):
    """All values that follow the option, up to the next option."""

    def __init__(self, of: Any) -> None:
        self._of = click.types.convert_type(of)
        self.name = f"{self._of.name}..."

    def convert(self, value: Any, parameter: Any, context: Any) -> list[Any]:
        values = value.split() if isinstance(value, str) else value
        return [self._of(one, parameter, context) for one in values]


class _Command(click.Command):
    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        several = [one.opts[0] for one in self.params if isinstance(one.type, Several)]
        joined: list[str] = []
        taking = False
        for word in args:
            if taking and not word.startswith("--"):
                joined[-1] = f"{joined[-1]} {word}".strip()
                continue
            taking = word in several
            joined += [word, ""] if taking else [word]
        return super().parse_args(context, joined)


def benchmark(run: Callable[[Options], Awaitable[None]]) -> click.Command:
    """Its help is the module's first line. It runs on the loop that worker processes run on."""
    summary = str(getmodule(run).__doc__).partition("\n")[0]

    @click.command(cls=_Command, help=summary, short_help=summary)
    @wraps(run)
    def command(**options: Any) -> None:
        configure("console", "warning", "bench")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(Options(**options)))

    return command
