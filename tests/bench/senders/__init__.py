"""Coursewire beside Outpost and Svix: the same loads, each system with all of its stores.

The peers take part where OUTPOST_BIN and SVIX_BIN name their programs and PostgreSQL and RabbitMQ
are installed.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Sequence
from statistics import median
from typing import Any

import click
import httpx
import msgspec

from tests.bench import report
from tests.bench.command import Options, Several, benchmark, option
from tests.bench.senders.peers import Outpost, Svix
from tests.bench.senders.scenes import Outcome, Scene, Sizes, limit, perform, scenes, upstream_limit
from tests.bench.senders.systems import Coursewire, System

_SYSTEMS: dict[str, type[System]] = {
    "coursewire": Coursewire,
    "outpost": Outpost,
    "svix": Svix,
}
_SCENES = ("one", "many", "bursts", "dead", "order", "kill")
_SETTINGS = ("defaults", "best")
_COLUMNS = (
    *("", "deliveries/s", "limit / this", "accepted/s", "CPU s / 1,000", "MB", "p50 ms", "p99 ms"),
    *("lost", "twice", "out of order", "silence s"),
)
_WIDTH = 170  # columns that the table needs

Key = tuple[str, str, str]  # the system, its settings, the phase of the scene


@benchmark
@option("--events", default=20_000, help="to one destination; other scenes follow")
@option("--rounds", default=1)
@option("--scene", type=Several(click.Choice(_SCENES)), default=[*_SCENES])
@option("--system", type=Several(click.Choice([*_SYSTEMS])), default=[*_SYSTEMS])
@option("--settings", type=Several(click.Choice(_SETTINGS)), default=[*_SETTINGS])
@option("--destinations", default=200, help="of the scene many")
@option("--some", default=20, help="destinations of the scenes bursts and dead")
@option("--patience", default=300.0, help="seconds for what was accepted to arrive")
@option("--settle", default=12.0, help="seconds for which work that is put off still counts")
async def run(options: Options) -> None:
    """Measures and reports. A signal ends it with all that it started."""
    ending = asyncio.current_task()
    assert ending is not None
    asked = asyncio.Event()

    def end() -> None:
        if not asked.is_set():  # a second signal must not interrupt what the first one ends
            asked.set()
            ending.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, end)
    try:
        await _measure(options)
    except asyncio.CancelledError:
        raise click.Abort from None


async def _measure(options: Options) -> None:
    """A scene at a time; in each round the systems take turns."""
    systems, left_out = _taking_part(options.system)
    for one in left_out:
        sys.stdout.write(f"left out: {one}\n")
    found = scenes(Sizes(options.events, options.destinations, options.some))
    results: dict[str, Any] = {}
    failures: list[str] = []
    source = round(await upstream_limit())
    sys.stdout.write(f"the upstream alone: {source} courses/s\n")
    for name in options.scene:
        scene = found[name]
        most = round(await limit(scene, options.patience), 1)
        outcomes = await _scene(scene, systems, options, failures)
        results[name] = {
            "title": scene.title,
            "limit_per_second": most,
            "systems": [_summary(key, runs) for key, runs in outcomes.items()],
        }
        _show(name, scene, most, outcomes)
    report.tell(
        "senders",
        report.EMBEDDED,
        {
            "left_out": left_out,
            "failures": failures,
            "upstream_courses_per_second": source,
            "scenes": results,
        },
    )
    if failures:
        raise click.ClickException("\n".join(failures))


def _taking_part(names: Sequence[str]) -> tuple[list[type[System]], list[str]]:
    """The systems that can be measured here, and why others can't."""
    chosen = [_SYSTEMS[name] for name in names]
    lacks = {one: one.lacking() for one in chosen}
    return (
        [one for one in chosen if not lacks[one]],
        [f"{one.name}: {'; '.join(missing)}" for one, missing in lacks.items() if missing],
    )


async def _scene(
    scene: Scene, systems: Sequence[type[System]], options: Options, failures: list[str]
) -> dict[Key, list[Outcome]]:
    outcomes: dict[Key, list[Outcome]] = {}
    turns = [(one, settings) for settings in options.settings for one in systems]
    for number in range(options.rounds):
        # Nobody always follows the same system.
        for kind, settings in turns if number % 2 == 0 else reversed(turns):
            try:
                measured = await perform(
                    scene,
                    kind,
                    best=settings == "best",
                    patience=options.patience,
                    settle=options.settle,
                )
            except (AssertionError, TimeoutError, ExceptionGroup, httpx.HTTPError) as failure:
                failures.append(f"{kind.name} {settings}: {scene.title}: {failure!r}")
                continue  # the others are measured all the same
            for one in measured:
                outcomes.setdefault((kind.name, settings, one.phase), []).append(one)
    return outcomes


def _summary(key: Key, runs: Sequence[Outcome]) -> dict[str, Any]:
    name, settings, phase = key
    return {
        "system": name,
        "settings": settings,
        "phase": phase,
        "rounds": [msgspec.to_builtins(one) for one in runs],
    }


def _show(name: str, scene: Scene, most: float, outcomes: dict[Key, list[Outcome]]) -> None:
    rows = [
        _row(key, outcomes[key], most, paced=scene.pace > 0)
        for key in sorted(
            outcomes, key=lambda key: (key[1] != "defaults", key[0], key[2] == "with")
        )
    ]
    report.show(
        f"senders, {name}: {scene.title} (limit, publisher to receivers: {most:.0f}/s)",
        _COLUMNS,
        rows,
        width=_WIDTH,
    )


def _row(key: Key, runs: Sequence[Outcome], most: float, *, paced: bool) -> tuple[str, ...]:
    verdicts = [one.verdict for one in runs]
    rates = [one.rate for one in verdicts]
    rate = median(rates)
    spread = f" ({min(rates):.0f}-{max(rates):.0f})" if len(rates) > 1 else ""
    twice = [one.duplicates + one.renamed + one.invented for one in verdicts]
    return (
        " ".join(filter(None, key)),
        "" if paced else f"{rate:.0f}{spread}",
        "" if paced else f"{most / rate:.1f}",
        "" if paced else f"{median(one.accepted_per_second for one in verdicts):.0f}",
        f"{median(1000 * one.cpu_seconds / one.verdict.expected for one in runs):.2f}",
        f"{median(one.peak_mb for one in runs):.0f}",
        _median([one.p50_ms for one in verdicts]),
        _median([one.p99_ms for one in verdicts]),
        _counts([one.lost for one in verdicts]),
        _counts(twice),
        _counts([one.disordered for one in verdicts]),
        _median([one.silence for one in verdicts]),
    )


def _median(values: Sequence[float | None]) -> str:
    known = [one for one in values if one is not None]
    return f"{median(known):.1f}" if known else ""


def _counts(values: Sequence[int]) -> str:
    """Of each round, unless all are the same."""
    return str(values[0]) if len(set(values)) == 1 else ", ".join(map(str, values))
