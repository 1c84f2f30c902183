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

from tests.chaos import answers
from tests.chaos.history import History, Told
from tests.chaos.house import WORKERS, ChaosHouse
from tests.chaos.leftovers import at_rest, leaked
from tests.chaos.plan import FAULTS, Step, has_hostile, plan
from tests.chaos.receivers import MIX, Receiver, Receivers
from tests.chaos.upstream import Upstream
from tests.e2e.conftest import until

SETTLED = 300.0  # seconds within which all must have come to rest
LONG_TIMEOUT = 15  # seconds, longer than a lease, that some subscriptions wait for an answer
ODD_POLLS = 5  # of each integration
BORNE = 60.0  # seconds within which a calm house has dealt with peers that are odd and no more
OPERATIONS = {"edit": 60, "provider": 8, "skill": 8, "revision_add": 6, "revision_remove": 3,
              "create": 5, "delete": 4, "vanish": 3, "restore": 5}  # fmt: skip
UNGUARDED = {"deleted_share": 1, "deleted_share_max": 1, "changed_share": 1}
# Retries that outlast any outage of a run, so that no delivery may end as dead.
RETRIES = [1, 1, 1, 2, 2, 3, 3, 5, 5, 5, *([10] * 10)]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How large a run is, and what is done in it (`only`: these actions, if any are named).

    Courses change at random, `changes_per_second`, for `seconds`; or all of them change `rounds`
    times, each time seen by a poll, and the run goes on until everything has arrived, for
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
    upstream = Upstream(str(house.sandbox.base_url), house.foreign, options.seed)
    receivers.start()
    upstream.start()
    try:
        await house.start()
        chaos = _Chaos(options, house, receivers, upstream, history, say)
        await chaos.prepare()
        await chaos.rage()
        await chaos.settle()
        await chaos.look_back()
    finally:
        await house.close()
        await receivers.close()
        await upstream.close()
    return history


class _Chaos:
    def __init__(
        self,
        options: Options,
        house: ChaosHouse,
        receivers: Receivers,
        upstream: Upstream,
        history: History,
        say: Callable[[str], object],
    ) -> None:
        self._options = options
        self._house = house
        self._receivers = receivers
        self._upstream = upstream
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
                base_url=f"{self._upstream.url}/v1",
                baseline="emit",
                delta_interval_seconds=2,
                full_interval_seconds=20,
                guards=UNGUARDED,
                paused=True,
            )
            house.ids[upstream_id] = house.integration_id
        for number, receiver in enumerate(self._receivers.all):
            wanted = house.integrations
            if number % 3 == 2:
                wanted = [house.integrations[number % len(house.integrations)]]
            await self._subscribe(receiver, wanted, LONG_TIMEOUT if number % 5 == 4 else 1)
        for upstream_id in house.integrations:
            self._history.states += await house.all_states(upstream_id)
            await house.call(
                "PATCH", f"/v1/integrations/{house.ids[upstream_id]}", json={"paused": False}
            )

    async def _subscribe(self, receiver: Receiver, wanted: Sequence[str], seconds: float) -> None:
        made = await self._house.call(
            "POST",
            "/v1/subscriptions",
            json={
                "url": self._receivers.url(receiver),
                "integration_ids": [self._house.ids[one] for one in wanted],
                "timeout_seconds": seconds,
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
            await self._house.polled(upstream_id, "full", self._options.seconds)
        for _ in range(self._options.rounds):
            for upstream_id in self._house.integrations:
                states = await self._house.altered(upstream_id, {"op": "edit", "all": True})
                self._history.states += states
                await self._house.polled(upstream_id, "delta", self._options.seconds)
        await until(self._drained, seconds=self._options.seconds, what="outboxes that are empty")
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
        elif step.do == "hostile upstream":
            self._upstream.spoil(int(step.target), int(step.amount))
        elif step.do == "hostile receiver":
            number, which = divmod(int(step.target), len(answers.HOSTILE))
            receivers = self._receivers.all
            receivers[number % len(receivers)].spoil(which, int(step.amount))
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
        self._upstream.recover()
        self._receivers.recover()
        for name in WORKERS:
            house.processes[name].kill()
            house.mislead(name, 0)
            house.processes[name].start()
        await house.ready()
        await self._resume()
        for upstream_id in house.integrations:
            await house.polled(upstream_id, "full", SETTLED)
        if has_hostile(self._options.only):
            await self._bear()
        for upstream_id, integration_id in house.ids.items():
            await house.polled(upstream_id, "full", SETTLED)
            await house.call("PATCH", f"/v1/integrations/{integration_id}", json={"paused": True})
        await until(self._drained, seconds=SETTLED, what=f"empty outboxes\n{house.logs()}")
        self._say("all is at rest")

    async def _resume(self) -> None:
        for subscription_id in self._subscriptions.values():
            path = f"/v1/subscriptions/{subscription_id}/resume"

            async def resumed(path: str = path) -> Any:
                return await self._house.attempt("POST", path)

            await until(resumed, seconds=30, what=f"{path}\n{self._house.logs()}")

    async def _bear(self) -> None:
        """Has every answer of every peer be odd, in ways that are to be borne, and notes what
        was not."""
        house, refused = self._house, self._history.refused
        await until(self._drained, seconds=SETTLED, what=f"empty outboxes\n{house.logs()}")
        self._say("receivers are odd")
        for receiver in self._receivers.all:
            receiver.odd = True
        await asyncio.gather(*(self._edited(one, SETTLED) for one in house.integrations))
        try:
            await until(self._drained, seconds=BORNE, what="empty outboxes")
        except AssertionError:
            refused.append("deliveries were still pending, for receivers said success oddly")
        self._receivers.recover()
        await self._resume()
        self._say("the upstream is odd")
        self._upstream.odd = True
        for upstream_id in await asyncio.gather(*map(self._refused, house.integrations)):
            if upstream_id is not None:
                refused.append(f"a poll of {upstream_id}, whose answers were odd, did not complete")
        self._upstream.recover()

    async def _refused(self, upstream_id: str) -> str | None:
        """Which integration this is, if not all polls of some complete."""
        try:
            for _ in range(ODD_POLLS):
                await self._edited(upstream_id, BORNE)
        except AssertionError:
            return upstream_id
        return None

    async def _edited(self, upstream_id: str, seconds: float) -> None:
        """Changes some courses, and waits for a poll that could see it."""
        changes = await self._house.altered(upstream_id, {"op": "edit", "count": 10})
        self._history.states += changes
        await self._house.polled(upstream_id, "full", seconds)

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
        for letter, count in self._upstream.struck.items():
            history.struck[f"{letter} upstream"] = count
        history.struck["F upstream"] = len(house.foreign)
        for letter, count in self._receivers.struck.items():
            history.struck[f"{letter} receiver"] = count
        history.reused += self._upstream.reused
        history.crossed += self._upstream.crossed
        history.fenced = sum(
            house.processes[name].log().count(words)
            for name, words in itertools.product(
                WORKERS, ("lease lost, outbox released", "lease or epoch lost, poll released")
            )
        )
        async with Redis.from_url(house.redis_url) as redis:
            await until(lambda: at_rest(redis), seconds=60, what="leases and claims that end")
            history.leaked = await leaked(redis)


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
