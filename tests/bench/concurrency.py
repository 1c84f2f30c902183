"""Deliveries a second by `max_concurrency` and the number of subscriptions.

One worker process sends about the same number of deliveries in each cell. Each subscription has a
host of its own, in one process of receivers that answer at once.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from statistics import median
from typing import Any

import msgspec

from service.bootstrap import Services
from service.domain.delivery.subscription import Subscription
from tests.bench import report
from tests.bench.command import Options, Several, benchmark, option
from tests.bench.delivery import Bench, Scene
from tests.bench.processes import child
from tests.bench.source import Source, open_fresh, subscribe, workers

Cells = dict[tuple[int, int], list[float]]


@benchmark
@option("--deliveries", default=5_000, help="of each cell, at least one to each subscription")
@option("--rounds", default=3)
@option("--subscriptions", type=Several(int), default=[1, 10, 100, 1000])
@option("--concurrency", type=Several(int), default=[1, 8, 64, 100])
async def run(options: Options) -> None:
    """Measures and reports."""
    async with AsyncExitStack() as stack:
        settings, services, dispatcher = await open_fresh(stack)
        source = Source(services, dispatcher)
        await source.start()
        bench = Bench(services, source, options)
        receivers = await stack.enter_async_context(
            child("tests.bench.subscribers", "--hosts", str(max(options.subscriptions)))
        )
        urls = [f"http://{host}/hooks" for host in await receivers.hear()]
        ids = [await subscribe(services, url, bench.secret) for url in urls]
        scenes = {
            count: Scene(receivers, urls[:count], ids[:count]) for count in options.subscriptions
        }
        cells: Cells = {(count, most): [] for count in scenes for most in options.concurrency}
        async with workers(settings) as senders:
            for number in range(-1, options.rounds):
                for (count, most), rates in cells.items():
                    await _limit(services, scenes[count].subscriptions, most)
                    events = max(1, options.deliveries // count)
                    await bench.fill(scenes[count], events)
                    measured = await bench.ours(scenes[count], events, senders)
                    if number >= 0:  # the first round is for warming up
                        rates.append(measured.rate)
        server = await report.server_version(services.redis)
    results = {
        "deliveries": options.deliveries,
        "rounds": options.rounds,
        "cells": [
            {
                "subscriptions": count,
                "max_concurrency": most,
                "per_second": round(median(rates)),
                "least": round(min(rates)),
                "most": round(max(rates)),
            }
            for (count, most), rates in cells.items()
        ],
    }
    _show(results, options)
    report.tell("concurrency", server, results)


async def _limit(services: Services, subscriptions: list[str], most: int) -> None:
    """Sets `max_concurrency` of the subscriptions."""

    def limited(stored: Subscription) -> Subscription:
        return msgspec.structs.replace(stored, max_concurrency=most)

    for one in subscriptions:
        await services.subscriptions.update(one, limited)


def _show(results: dict[str, Any], options: Options) -> None:
    found = {(one["subscriptions"], one["max_concurrency"]): one for one in results["cells"]}
    report.show(
        f"deliveries/s of one worker process, medians of {results['rounds']} rounds (from least to "
        f"most); about {results['deliveries']} deliveries in each cell",
        ("subscriptions", *(f"max_concurrency {most}" for most in options.concurrency)),
        [
            (
                str(count),
                *(
                    f"{one['per_second']} ({one['least']} to {one['most']})"
                    for one in (found[count, most] for most in options.concurrency)
                ),
            )
            for count in options.subscriptions
        ],
    )
