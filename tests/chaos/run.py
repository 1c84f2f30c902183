"""One run: courses change, everything goes wrong by plan, then all of it comes to rest."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from redis.asyncio import Redis

from service.storage.keys import LASTING
from tests.chaos.history import History, Told
from tests.chaos.house import WORKERS, ChaosHouse
from tests.chaos.plan import FAULTS, Step, plan
from tests.chaos.receivers import MIX, Receiver, Receivers
from tests.e2e.conftest import until

SETTLED = 300.0  # seconds within which all must have come to rest
OPERATIONS = {"edit": 60, "provider": 8, "skill": 8, "revision_add": 6, "revision_remove": 3,
              "create": 5, "delete": 4, "vanish": 3, "restore": 5}  # fmt: skip
UNGUARDED = {"deleted_share": 1, "deleted_share_max": 1, "changed_share": 1}
# Retries that outlast any outage of a run, so that no delivery may end as dead.
RETRIES = [1, 1, 1, 2, 2, 3, 3, 5, 5, 5, *([10] * 10)]
RQ_LASTING = ("rq:queues", "rq:workers", "rq:queue:", "rq:wip:", "rq:failed:", "rq:finished:",
              "rq:clean_registries:")  # fmt: skip


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How large a run is, and what is done in it (`only`: these actions, if any are named).

    Courses change at random, `changes_per_second`, for `seconds`; or all of them change `rounds`
    times, each time seen by a walk, and the run goes on until everything has arrived, for
    `seconds` at most. `mix` is how receivers answer.
    """

    seed: int
    seconds: float
    integrations: int = 3
    courses: int = 200
    subscribers: int = 6
    changes_per_second: float = 8.0
    rounds: int = 0
    only: tuple[str, ...] = ()
    mix: Mapping[str, float] = msgspec.field(default_factory=lambda: MIX)


async def run(options: Options, directory: Path, say: Callable[[str], object]) -> History:
    """Returns what was to be seen. Raises AssertionError if it does not come to rest."""
    upstream_ids = [f"workday:chaos-{number}" for number in range(options.integrations)]
    house = ChaosHouse(directory, upstream_ids, options.courses)
    history = History()
    names = [f"receiver-{number}" for number in range(options.subscribers)]
    receivers = Receivers(names, options.seed, options.mix, history)
    await receivers.start()
    try:
        await house.start()
        chaos = _Chaos(options, house, receivers, history, say)
        await chaos.prepare()
        await chaos.rage()
        await chaos.settle()
        await chaos.look_back()
    finally:
        await house.close()
        await receivers.close()
    return history


class _Chaos:
    def __init__(
        self,
        options: Options,
        house: ChaosHouse,
        receivers: Receivers,
        history: History,
        say: Callable[[str], object],
    ) -> None:
        self._options = options
        self._house = house
        self._receivers = receivers
        self._history = history
        self._say = say
        self._random = random.Random(f"changes {options.seed}")
        self._busy: set[str] = set()  # processes that something is being done to
        self._subscriptions: dict[str, str] = {}  # by receiver
        self._over = asyncio.Event()

    # --- before --------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Registers everything. Some receivers are told of one integration, most of all."""
        house = self._house
        for upstream_id in house.integrations:
            await house.register(
                name=upstream_id,
                upstream_id=upstream_id,
                baseline="emit",
                delta_interval_seconds=2,
                sweep_interval_seconds=20,
                guards=UNGUARDED,
                paused=True,
            )
            house.ids[upstream_id] = house.integration_id
        for number, receiver in enumerate(self._receivers.all):
            wanted = house.integrations
            if number % 3 == 2:
                wanted = [house.integrations[number % len(house.integrations)]]
            await self._subscribe(receiver, wanted)
        for upstream_id in house.integrations:
            self._history.states += await house.all_states(upstream_id)
            await house.call(
                "PATCH", f"/v1/integrations/{house.ids[upstream_id]}", json={"paused": False}
            )

    async def _subscribe(self, receiver: Receiver, wanted: Sequence[str]) -> None:
        made = await self._house.call(
            "POST",
            "/v1/subscriptions",
            json={
                "url": f"{self._receivers.url}/{receiver.name}",
                "integration_ids": [self._house.ids[one] for one in wanted],
                "timeout_seconds": 1,
                "retry_schedule_seconds": RETRIES,
            },
        )
        receiver.secrets = [made["secret"]]
        self._subscriptions[receiver.name] = made["id"]
        self._history.subscribers[receiver.name] = list(wanted)

    # --- meanwhile -----------------------------------------------------------------------------

    async def rage(self) -> None:
        """Carries out the plan while courses change."""
        options, began = self._options, time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self._house.watch_file())
            changing = tasks.create_task(self._change_all() if options.rounds else self._change())
            under_way = []
            for step in plan(options.seed, options.seconds, only=options.only):
                await self._wait(began + step.at - time.monotonic())
                if self._over.is_set():
                    break
                under_way.append(tasks.create_task(self._carry_out(step)))
            await self._wait(began + options.seconds - time.monotonic())
            self._over.set()
            await changing
            await asyncio.gather(*under_way)
            watching.cancel()

    async def _change_all(self) -> None:
        """All courses, round by round; it is over when everybody has been told."""
        for upstream_id in self._house.integrations:
            await self._house.walked(upstream_id, "sweep", self._options.seconds)
        for _ in range(self._options.rounds):
            for upstream_id in self._house.integrations:
                states = await self._house.altered(upstream_id, {"op": "edit", "all": True})
                self._history.states += states
                await self._house.walked(upstream_id, "delta", self._options.seconds)
        await until(self._drained, seconds=self._options.seconds, what="lanes that are empty")
        self._over.set()

    async def _change(self) -> None:
        pause = 1 / self._options.changes_per_second
        while not self._over.is_set():
            upstream_id = self._random.choice(self._house.integrations)
            op = self._random.choices(list(OPERATIONS), list(OPERATIONS.values()))[0]
            # One now and then is followed by another of the same course, at once.
            changes = await self._house.altered(upstream_id, {"op": op})
            self._history.states += changes
            if changes and changes[-1].content and self._random.random() < 0.2:
                again = {"op": "edit", "course_id": changes[-1].course_id}
                self._history.states += await self._house.altered(upstream_id, again)
            await self._wait(pause)

    async def _carry_out(self, step: Step) -> None:
        self._say(str(step))
        verb, kind = step.do.split()
        if kind in ("worker", "api", "scheduler", "valkey"):
            name = WORKERS[int(step.target) % len(WORKERS)] if kind == "worker" else kind
            if name not in self._busy:
                self._busy.add(name)
                await self._disturb(verb, name, step.amount)
                self._busy.discard(name)
        elif step.do == "fault sandbox":
            fault = {**FAULTS[int(step.target)], "times": int(step.amount)}
            answer = await self._house.sandbox.post("/control/faults", json=fault)
            assert answer.status_code == 201, answer.text
        elif step.do == "skew sandbox":
            skew = {"skew_seconds": step.amount}
            await self._house.sandbox.post("/control/clock", json=skew)
        else:
            await self._bother(verb, self._receivers.all, int(step.target), step.amount)

    async def _disturb(self, verb: str, name: str, amount: float) -> None:
        house, process = self._house, self._house.processes[name]
        if verb == "stop":
            house.freeze(name)
            await self._wait(amount)
            house.thaw(name)
            return
        if verb == "end":
            await asyncio.to_thread(process.stop)
        else:
            await asyncio.to_thread(process.kill)
        if verb == "cut":
            self._history.cuts.append(time.monotonic())
            house.forget(amount)
        elif verb == "skew":
            house.mislead(name, amount)
        else:
            await self._wait(amount)
        process.start()

    async def _bother(
        self, verb: str, receivers: Sequence[Receiver], target: int, amount: float
    ) -> None:
        receiver = receivers[target % len(receivers)]
        path = f"/v1/subscriptions/{self._subscriptions[receiver.name]}"
        if verb == "silence":
            receiver.silent_until = time.monotonic() + amount
        elif verb == "rotate":
            # The receiver knows both before either is used, as one that is careful does.
            made = await self._house.attempt("POST", f"{path}/secret/rotate", json={})
            if made is not None:
                receiver.secrets.append(made["secret"])
        else:
            await self._house.attempt("POST", f"{path}/replays", json={"which": "all"})

    async def _wait(self, seconds: float) -> None:
        """Less if the trouble is over before."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), max(0.0, seconds))

    # --- after ---------------------------------------------------------------------------------

    async def settle(self) -> None:
        """Ends all trouble, and waits until everybody has been told how everything is."""
        house = self._house
        self._say("all trouble ends")
        await house.sandbox.delete("/control/faults")
        await house.sandbox.post("/control/clock", json={"skew_seconds": 0})
        for name in WORKERS:
            house.processes[name].kill()
            house.mislead(name, 0)
            house.processes[name].start()
        for receiver in self._receivers.all:
            receiver.recover()
        await house.ready()
        for subscription_id in self._subscriptions.values():
            path = f"/v1/subscriptions/{subscription_id}/resume"

            async def resumed(path: str = path) -> Any:
                return await house.attempt("POST", path)

            await until(resumed, seconds=30, what=f"{path}\n{house.logs()}")
        for upstream_id in house.integrations:
            await house.walked(upstream_id, "sweep", SETTLED)
        for upstream_id, integration_id in house.ids.items():
            await house.walked(upstream_id, "sweep", SETTLED)
            await house.call("PATCH", f"/v1/integrations/{integration_id}", json={"paused": True})
        await until(self._drained, seconds=SETTLED, what=f"empty lanes\n{house.logs()}")
        self._say("all is at rest")

    async def _drained(self) -> bool:
        for subscription_id in self._subscriptions.values():
            path = f"/v1/subscriptions/{subscription_id}"
            found = await self._house.attempt("GET", path)
            replays = await self._house.attempt("GET", f"{path}/replays")
            if found is None or replays is None or found["pending"]:
                return False
            if any(one["finished_at"] is None for one in replays["items"]):
                return False
        return True

    async def look_back(self) -> None:
        """Reads what is left to be read: the log, dead deliveries, Redis's keys, the logs."""
        house, history = self._house, self._history
        after = ""
        while True:
            page = await house.call("GET", f"/v1/events?limit=500&payload=thin{after}")
            for event in page["items"]:
                if event["type"].startswith("course."):
                    history.log.append(_logged(event))
            if page["next"] is None:
                break
            after = f"&after={page['next']}"
        for subscription_id in self._subscriptions.values():
            found = await house.call("GET", f"/v1/subscriptions/{subscription_id}")
            history.dead += found["dead"]
        history.fenced = sum(
            house.processes[name].log().count(words)
            for name, words in itertools.product(WORKERS, ("lane given up", "walk given up"))
        )
        async with Redis.from_url(house.redis_url) as redis:
            await until(lambda: _at_rest(redis), seconds=60, what="leases and claims that end")
            history.leaked = await _leaked(redis)


def _logged(event: dict[str, Any]) -> Told:
    data = event["data"]
    return Told(
        id=data["event_id"],
        type=event["type"],
        upstream_id=data["upstream_id"],
        course_id=data["course_id"],
        sequence=data["sequence"],
        previous_sequence=data["previous_sequence"],
        content=None,
    )


async def _at_rest(redis: Redis) -> bool:
    leases = [name async for name in redis.scan_iter("cw:lease:*")]
    claims = [await redis.zcard(f"cw:claimed:{kind}") for kind in ("walks", "lanes")]
    return not leases and not any(claims)


async def _leaked(redis: Redis) -> list[str]:
    """Keys that should have a lifetime and have none, and what is left on lanes at rest."""
    found = []
    held = await _jobs_of_lost_workers(redis)
    async for name in redis.scan_iter("*", count=1000):
        key = name.decode()
        lasting = key.startswith(LASTING + RQ_LASTING) or key.removeprefix("rq:job:") in held
        if not lasting and await redis.ttl(name) == -1:
            found.append(f"{key} has no lifetime{await _described(redis, key)}")
        of_lane = key.startswith("cw:lane:") and key.split(":", 3)[3:]
        if of_lane in ([], ["retries"], ["failing"], ["replayed"], ["replayed:retries"]):
            size = await _size(redis, key)
            if size:
                found.append(f"{key} still holds {size}")
    totals = await redis.hgetall("cw:totals")
    wrong = (
        name for name in (b"pending", b"dead", b"parked", b"disabled") if int(totals.get(name, 0))
    )
    return found + [f"cw:totals has {totals[name].decode()} {name.decode()}" for name in wrong]


async def _described(redis: Redis, key: str) -> str:
    """What a job's key says, to find out where it comes from."""
    if not key.startswith("rq:job:"):
        return ""
    fields = await redis.hgetall(key)
    return (
        f": { ({name.decode(): value[:60] for name, value in fields.items() if name != b'data'}) }"
    )


async def _jobs_of_lost_workers(redis: Redis) -> set[str]:
    """Jobs that RQ's maintenance is going to declare failed, which then gives them a lifetime."""
    jobs: set[str] = set()
    async for name in redis.scan_iter("rq:wip:*"):
        jobs |= {entry.decode().partition(":")[0] for entry in await redis.zrange(name, 0, -1)}
    async for name in redis.scan_iter("rq:queue:*:intermediate"):
        jobs |= {entry.decode() for entry in await redis.lrange(name, 0, -1)}
    return jobs


async def _size(redis: Redis, key: str) -> int:
    kind = await redis.type(key)
    counts = {b"stream": redis.xlen, b"zset": redis.zcard, b"hash": redis.hlen}
    return await counts[kind](key) if kind in counts else 0
