"""Real Prometheus beside a running service that is well, and then is not: what it has of every
metric, panel and alert.

It works with the files of deploy/prometheus, but time goes SPEED times as fast: all durations of
the rules and the scraping are divided by it, and so are the ages that alerts compare with.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from aiohttp import web
from redis.asyncio import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from service.domain.observability.history import FAMILIES, MINUTES, hours_of, series_at
from service.domain.observability.metrics import PREFIX, series_names
from service.storage.observability.history import History
from service.storage.redis import keys
from service.storage.redis.client import open_sync
from service.storage.redis.counters import Counters
from tests.conftest import as_user, free_port, peer
from tests.e2e.conftest import House, Process, until
from tests.e2e.hosts import NetworkPath
from tests.programs import required_program
from workers.dispatch import queues
from workers.scheduler import sample_history

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
SPEED = 90
SCRAPE_SECONDS = 0.5
METRICS_TOKEN = "e2e-metrics-token-of-sufficient-length"
UPSTREAMS = [f"workday:prometheus-{number}" for number in range(4)]
COURSES = 60
HISTORY_MINUTE_MS = 3_000
PATIENCE = 90.0  # seconds; an alert needs up to an hour, hastened, and half a minute of ours

SECONDS = {"s": 1, "m": 60, "h": 3600}
DURATION = re.compile(r"\b(\d+)([smh])\b")
# Comparisons with ages that grow by the clock, and a rate. The scheduler's age has its own pace.
COMPARED = {
    '_age_seconds{kind="polls"}) > 120': 120,
    '_age_seconds{kind="outboxes"}) > 120': 120,
    'percentile="50"}) > 900': 900,
    'percentile="50"}) > 46800': 46_800,
    "p50_30m > 300": 300,
}
RATE = "> 1 / 300"

# What one revoked key and one dead subscriber lead to: tickets.
TOLERATED = {"CoursewireDeliveriesDead", "CoursewireIntegrationsNeedAttention"}


def hastened(text: str) -> str:
    """Rules or a query as they are, in a time that goes faster."""

    def shorter(found: re.Match[str]) -> str:
        return f"{int(found[1]) * SECONDS[found[2]] * 1000 // SPEED}ms"

    return DURATION.sub(shorter, text)


def hastened_alerts() -> str:
    text = hastened((DEPLOY / "prometheus/alerts.yml").read_text())
    for comparison, seconds in COMPARED.items():
        assert comparison in text, comparison
        text = text.replace(comparison, comparison.replace(str(seconds), f"{seconds / SPEED:.3f}"))
    assert RATE in text
    return text.replace(RATE, f"> {SPEED} / 300")


ALERTS = {
    rule["alert"]: rule["labels"]["severity"]
    for group in yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}


class Prometheus:
    """A server of its own that scrapes two processes of the API as deploy/prometheus says."""

    def __init__(self, directory: Path, targets: Collection[str]) -> None:
        self.directory = directory
        directory.mkdir()
        (directory / "token").write_text(METRICS_TOKEN)
        for name, text in (
            ("recording.yml", hastened((DEPLOY / "prometheus/recording.yml").read_text())),
            ("alerts.yml", hastened_alerts()),
            ("prometheus.yml", yaml.safe_dump(self._configuration(targets))),
        ):
            (directory / name).write_text(text)
        port = free_port()
        self.process = Process(
            "prometheus",
            [
                required_program("prometheus"),
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            {},
            directory,
        )
        self._api = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=30)
        self.begun = time.time()

    @staticmethod
    def _configuration(targets: Collection[str]) -> dict[str, Any]:
        found = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
        pace = f"{SCRAPE_SECONDS * 1000:.0f}ms"
        found["global"] = dict.fromkeys(found["global"], pace)
        for job in found["scrape_configs"]:
            del job["dns_sd_configs"]
            job["static_configs"] = [{"targets": sorted(targets)}]
            job["authorization"] = {"credentials_file": "token"}
            if "scrape_interval" in job:
                job["scrape_interval"] = f"{2 * SCRAPE_SECONDS * 1000:.0f}ms"
        return found

    async def ask(self, path: str, **parameters: Any) -> Any:
        answer = await self._api.get(path, params=parameters)
        assert answer.is_success, f"{parameters}: {answer.text}"
        return answer.json()["data"]

    async def ready(self) -> None:
        self.process.start()

        async def scrapes() -> bool:
            with contextlib.suppress(httpx.TransportError):
                if not (await self._api.get("/targets")).is_success:
                    return False
                targets = (await self.ask("/targets"))["activeTargets"]
                return len(targets) == 4 and all(one["health"] == "up" for one in targets)
            return False

        await until(scrapes, seconds=30, what=f"Prometheus scrapes\n{self.process.log()}")

        async def has_seen_them() -> bool:
            return "CoursewireAbsent" not in await self.firing()

        await until(has_seen_them, seconds=30, what="no absence")
        self.begun = time.time()

    async def firing(self) -> set[str]:
        found = await self.ask("/alerts")
        return {one["labels"]["alertname"] for one in found["alerts"] if one["state"] == "firing"}

    async def data(self, expression: str) -> list[Any]:
        """What an expression has given since the start."""
        found = await self.ask(
            "/query_range", query=expression, start=self.begun, end=time.time(), step="1"
        )
        return found["result"]

    async def close(self) -> None:
        if self.process.running:
            self.process.kill()
        await self._api.aclose()


class Scene:
    """The service with two APIs, its subscribers, and what happens to courses."""

    def __init__(self, directory: Path) -> None:
        self.house = house = House(directory, COURSES)
        self.failing = False  # whether the subscribers refuse everything
        self.received = 0
        house.processes["sandbox"] = house.processes["sandbox"].like(
            "sandbox", *(part for name in UPSTREAMS for part in ("--integration", name))
        )
        valkey_port = int(house.redis_url.rpartition(":")[2].partition("/")[0])
        self.path = NetworkPath(valkey_port)
        self.other_port = free_port()
        house.processes["api"] = house.processes["api"].like(
            "api", COURSEWIRE_METRICS_TOKEN=METRICS_TOKEN
        )
        house.processes["other-api"] = house.processes["api"].like(
            "other-api",
            COURSEWIRE_PORT=str(self.other_port),
            COURSEWIRE_REDIS_URL=as_user(f"redis://127.0.0.1:{self.path.port}/0"),
        )
        self.redis = Redis.from_url(house.redis_url)
        self.prometheus = Prometheus(
            directory / "prometheus",
            [f"127.0.0.1:{port}" for port in (house.api_port, self.other_port)],
        )
        self._integrations: list[str] = []
        self._churning: asyncio.Task[None] | None = None

    async def open(self, url: str) -> None:
        await self.path.open()
        await self.house.start()
        for number, upstream_id in enumerate(UPSTREAMS):
            await self.house.register(upstream_id=upstream_id, name=f"n{number}")
            self._integrations.append(self.house.integration_id)
        await self.house.register(name="revoked", api_key="wrong")
        for number in range(3):
            await self.subscribe(f"{url}/{number}")
        await self.subscribe(f"http://127.0.0.1:{free_port()}/", retry_schedule_seconds=[1, 1])

        async def all_active() -> bool:
            found = await self.house.call("GET", "/v1/integrations")
            return [one["state"] for one in found["items"]].count("active") == len(UPSTREAMS)

        await until(all_active, seconds=60, what=f"active integrations\n{self.house.logs()}")
        await self.prometheus.ready()
        self.churn()

    async def subscribe(self, url: str, **fields: Any) -> None:
        await self.house.call("POST", "/v1/subscriptions", json={"url": url, **fields})

    async def receive(self, request: web.Request) -> web.Response:
        await request.read()
        self.received += not self.failing
        return web.Response(status=500 if self.failing else 204)

    # --- what happens to courses --------------------------------------------------------------

    def churn(self) -> None:
        self._churning = asyncio.create_task(self._churn())

    async def still(self) -> None:
        if self._churning is not None:
            self._churning.cancel()
            await asyncio.gather(self._churning, return_exceptions=True)

    async def _churn(self) -> None:
        while True:
            for upstream_id in UPSTREAMS:
                with contextlib.suppress(httpx.HTTPError):
                    await self.house.sandbox.post(
                        f"/control/integrations/{upstream_id}/changes",
                        json=[{"op": "edit", "count": 3}],
                    )
            await self.poll("delta")
            await asyncio.sleep(1)

    async def poll(self, kind: str) -> None:
        for integration_id in self._integrations:
            await self.house.attempt(
                "POST", f"/v1/integrations/{integration_id}/polls", json={"kind": kind}
            )

    async def fault(self, **fault: Any) -> None:
        answer = await self.house.sandbox.post("/control/faults", json=fault)
        assert answer.is_success, answer.text

    async def no_faults(self) -> None:
        answer = await self.house.sandbox.delete("/control/faults")
        assert answer.is_success, answer.text

    # --- what Prometheus has to say -----------------------------------------------------------

    async def fires(self, *names: str) -> None:
        """Waits until these fire."""
        missing = set(names)

        async def all_fire() -> bool:
            missing.difference_update(await self.prometheus.firing())
            return not missing

        try:
            await until(all_fire, seconds=PATIENCE, what="all fire")
        except AssertionError:
            raise AssertionError(f"silent: {missing}\n{self.house.logs()}") from None

    async def waits(self, deliveries: int) -> None:
        """Waits until so many deliveries do."""

        async def pending() -> bool:
            return int(await self.redis.hget(keys.TOTALS, "pending") or 0) >= deliveries

        await until(pending, seconds=30, what=f"{deliveries} pending\n{self.house.logs()}")

    async def is_idle(self) -> None:
        """Stops the changes of courses, and waits until Prometheus sees no page and no delivery."""
        await self.still()
        counters = f"{{__name__=~'{PREFIX}(pages_total|deliveries_total)',state!='dead'}}"
        idle = f"max(changes({counters}[{4 * SCRAPE_SECONDS * 1000:.0f}ms])) == 0"

        async def seen() -> bool:
            return bool((await self.prometheus.ask("/query", query=idle))["result"])

        await until(seen, seconds=30, what="Prometheus sees nothing happen")

    async def is_well(self) -> None:
        """Waits until nothing fires but what one key and one subscriber lead to."""

        async def quiet() -> bool:
            return await self.prometheus.firing() <= TOLERATED

        try:
            await until(quiet, seconds=PATIENCE, what="silence")
        except AssertionError:
            still = await self.prometheus.firing() - TOLERATED
            raise AssertionError(f"still firing: {still}\n{self.house.logs()}") from None

    async def close(self) -> None:
        await self.still()
        await self.prometheus.close()
        await self.redis.aclose()
        await self.house.close()
        await self.path.close()


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    stands = Scene(directory)
    async with peer(web.post("/{number}", stands.receive)) as url:
        try:
            await stands.open(url)
            yield stands
        finally:
            await stands.close()


@pytest.mark.nightly  # minutes; every rule is tested by promtool for every change
async def test_prometheus_sees_everything_and_alerts_fire_under_their_faults_alone(tmp_path: Path):
    required_program("prometheus")
    promtool = required_program("promtool")
    async with scene(tmp_path) as stands:
        house, prometheus, redis = stands.house, stands.prometheus, stands.redis
        fired: set[str] = set()

        # All is well, but for one revoked key and one dead subscriber: nobody is woken.
        await asyncio.sleep(1200 / SPEED)
        assert await prometheus.firing() <= TOLERATED
        assert not await prometheus.data('ALERTS{severity="page",alertstate="firing"}')
        await stands.fires(*TOLERATED)
        fired |= TOLERATED

        # Delivery is paused for long, and meanwhile nobody works, then Redis is in trouble.
        await house.call("POST", "/v1/pause", json={"what": "delivery"})
        await stands.waits(30)
        await asyncio.to_thread(house.processes["worker"].stop)
        gone = ("CoursewireNoWorkers", "CoursewireWorkOverdue", "CoursewirePollsLate")
        await stands.fires(*gone)
        fired.update(gone)
        house.processes["worker"].start()
        house.processes["scheduler"].kill()
        used = int((await redis.info("memory"))["used_memory"])
        await redis.config_set("appendonly", "no")
        await redis.config_set("maxmemory", int(used * 1.1))
        await stands.path.close()
        with open_sync(house.redis_url) as connection:
            Queue(queues.POLL, connection=connection, serializer=JSONSerializer).enqueue_call(
                "workers.rq.jobs.nothing_of_that_name"
            )
        trouble = (
            *("CoursewireNoScheduler", "CoursewireRedisNotPersisting", "CoursewireRedisMemory"),
            *("CoursewireReplicaCutOff", "CoursewireJobsFailed", "CoursewirePaused"),
        )
        await stands.fires(*trouble)
        fired.update(trouble)
        house.processes["scheduler"].start()
        await redis.config_set("appendonly", "yes")
        await redis.config_set("maxmemory", 0)
        await stands.path.open()
        await redis.delete(f"rq:failed:{queues.POLL}")

        # What has waited is delivered late: also what polls find now, once it has waited.
        await stands.still()
        await stands.waits(200)
        await asyncio.sleep(600 / SPEED)
        await house.call("POST", "/v1/resume", json={"what": "delivery"})
        await stands.fires("CoursewireDeliveriesLate")
        fired.add("CoursewireDeliveriesLate")
        stands.churn()
        await stands.is_well()

        # The upstream fails, so no full poll ends either, and no subscriber takes anything.
        swept = await redis.zrange(keys.completed("full"), 0, -1, withscores=True)
        await redis.zadd(keys.completed("full"), {one: at - 600_000 for one, at in swept})
        stands.failing = True
        await asyncio.sleep(300 / SPEED)  # of events that nobody takes
        await stands.fault(kind="error", code="PLATFORM.UNKNOWN_ERROR")
        failing = (
            *("CoursewireUpstreamFailing", "CoursewireNothingDelivered"),
            "CoursewireFullPollsLate",
        )
        await stands.fires(*failing)
        fired.update(failing)
        await stands.no_faults()
        stands.failing = False
        await stands.poll("full")
        await stands.is_well()

        # All keys are revoked.
        await stands.fault(kind="error", code="PLATFORM.AUTHENTICATION_INVALID")
        await stands.fires("CoursewireMostInError")
        fired.add("CoursewireMostInError")
        await stands.no_faults()

        # All that was to be seen has been.
        checked = await asyncio.to_thread(
            subprocess.run,
            [promtool, "check", "metrics"],
            input=(await scrape(house)).content,
            capture_output=True,
        )
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")
        for name in sorted(series_names()):
            assert await prometheus.data(name), f"no sample of {name}"
        for title, expression in panels():
            assert await prometheus.data(expression), f"no data for {title}: {expression}"
        (integrations,) = await prometheus.data("sum(coursewire:integrations)")
        assert float(integrations["values"][-1][1]) == len(UPSTREAMS) + 1  # not of both replicas

        # Redis is away, then the service as a whole.
        await stands.still()
        house.processes["valkey"].kill()
        asking = asyncio.create_task(ask_in_vain(house))
        await stands.fires("CoursewireRedisDown", "CoursewireApiErrors")
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        for name in ("api", "other-api"):
            house.processes[name].kill()
        await stands.fires("CoursewireAbsent")
        fired |= {"CoursewireRedisDown", "CoursewireApiErrors", "CoursewireAbsent"}

        assert fired == set(ALERTS)


@pytest.mark.nightly  # most of a minute; its arithmetic is tested for every change
async def test_history_agrees_with_prometheus(tmp_path: Path):
    required_program("prometheus")
    async with scene(tmp_path) as stands:
        await until(
            lambda: history_is_shown(stands.house), seconds=30, what="a sample of the scheduler"
        )
        await stands.is_idle()
        history = History(stands.redis, Counters(stands.redis), HISTORY_MINUTE_MS)
        stop = asyncio.Event()
        sampling = asyncio.create_task(sample_history(history, stop))
        since = int(time.time() * 1000) // HISTORY_MINUTE_MS * HISTORY_MINUTE_MS
        stands.churn()
        await until(
            lambda: sampled(history, since + 7 * HISTORY_MINUTE_MS), seconds=60, what="samples"
        )
        await stands.still()
        await stands.is_idle()
        idle_ms = int(time.time() * 1000)
        await until(
            lambda: sampled(history, idle_ms + HISTORY_MINUTE_MS), seconds=60, what="a last sample"
        )
        stop.set()
        await sampling

        minutes = (await history.read(MINUTES, since, 1 << 50))[1:]  # the first sample was late
        assert all(minute.increases is not None for minute in minutes)
        (whole,) = hours_of(minutes, 1 << 50)
        length = len(minutes) * HISTORY_MINUTE_MS
        end = minutes[-1].end / 1000
        compared = 0
        for one in series_at([whole.end], [whole], FAMILIES):
            if one.name == "oldest_pending_age_seconds":
                continue  # Prometheus has it by subscription
            labels = ",".join(f'{name}="{value}"' for name, value in one.labels.items())
            expression = {
                "counter": f"max(increase({PREFIX}{one.name}{{{labels}}}[{length}ms]))",
                "gauge": f"max({PREFIX}{one.name}{{{labels}}})",
                "quantile": f"histogram_quantile({one.labels.get('quantile')}, "
                f"max by (le) (increase({PREFIX}{one.name}_bucket[{length}ms])))",
            }[one.kind]
            found = await stands.prometheus.ask("/query", query=expression, time=end)
            ((_, value),) = [sample["value"] for sample in found["result"]]
            # Prometheus extrapolates to the ends of the range; memory goes up and down by itself.
            least, share = {"count": (1, 0.1), "seconds": (0.02, 0.1), "bytes": (0, 0.5)}[one.unit]
            expected = pytest.approx(float(value), abs=least, rel=share)
            assert one.values == [expected], expression
            compared += bool(one.values[0])
        assert compared > 15


async def sampled(history: History, end_ms: int) -> bool:
    """Whether a minute is on record that ended then, or later."""
    return bool(await history.read(MINUTES, end_ms - 1, 1 << 50))


async def history_is_shown(house: House) -> bool:
    shown = await house.call("GET", "/v1/history?series=integrations")
    return any(value is not None for one in shown["series"] for value in one["values"])


async def scrape(house: House) -> httpx.Response:
    answer = await house.api.get("/metrics", headers={"Authorization": f"Bearer {METRICS_TOKEN}"})
    assert answer.is_success, answer.text
    return answer


async def ask_in_vain(house: House) -> None:
    while True:
        with contextlib.suppress(httpx.HTTPError):
            await house.api.get("/v1/integrations")
        await asyncio.sleep(0.05)


def panels() -> Iterator[tuple[str, str]]:
    """The title and every query of each panel of the dashboard."""
    dashboard = json.loads((DEPLOY / "grafana/dashboards/coursewire.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", "4m")
            assert "$" not in expression, expression
            yield panel["title"], hastened(expression)
