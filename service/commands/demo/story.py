"""The course of the demo: changes, events, and whether the two agree."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from typing import Final

from service.commands.demo.oracle import CLOCK_TOLERANCE, LoggedChange, ReportedEvent, disagreements
from service.commands.demo.participants import DemoFailedError, Service, Upstream, newest_title
from service.commands.demo.terminal import Terminal
from service.commands.listen.push import Event, Push

_WAIT_SECONDS: Final = 0.1  # for the next push, in each check


class Story:
    """Changes, events, and whether the two agree."""

    def __init__(
        self, terminal: Terminal, upstream: Upstream, service: Service, inbox: asyncio.Queue[Push]
    ) -> None:
        self.verified = 0
        self.changes = 0
        self.latencies: list[float] = []
        self._terminal = terminal
        self._upstream = upstream
        self._service = service
        self._inbox = inbox
        self._last = 0  # the number of the last change that was read
        self._titles: dict[str, str] = {}
        self._known: frozenset[str] = frozenset()
        self._log: dict[str, list[LoggedChange]] = defaultdict(list)
        self._events: dict[str, list[ReportedEvent]] = defaultdict(list)

    async def begin(self) -> int:
        """Take the present courses as known. Returns their number."""
        earlier = await self._upstream.log(0)
        self._last = earlier[-1].n if earlier else 0
        for record in await self._upstream.records():
            self._titles[record["id"]] = newest_title(record) or record["id"]
        self._known = frozenset(self._titles)
        return len(self._known)

    async def change(self) -> None:
        """Change a course."""
        await self._upstream.change()

    async def look(self) -> None:
        """Print new changes and events, after a short wait for the latter.

        Raises DemoFailedError if an event does not agree with the log.
        """
        pushes: list[Push] = []
        with suppress(TimeoutError):
            pushes.append(await asyncio.wait_for(self._inbox.get(), _WAIT_SECONDS))
        while not self._inbox.empty():
            pushes.append(self._inbox.get_nowait())
        # Read after the pushes were taken: it then contains every change that they report.
        for change in await self._upstream.log(self._last):
            await self._note(change)
        for push in pushes:
            self._take(push)

    async def settle(self) -> None:
        """Wait until all changes so far must have been reported, and check that they were.

        Raises DemoFailedError if they were not.
        """
        await self.look()
        settled = self._last
        full_poll = await self._service.full_poll()
        while (poll := await self._service.poll(full_poll))["state"] != "completed":
            if poll["state"] == "failed":
                raise DemoFailedError(f"the last full poll failed: {poll['error']}")
            await self.look()
        while await self._service.pending():
            await self.look()
        await self.look()
        self._check(self._log.keys() | self._events.keys(), settled)

    async def _note(self, change: LoggedChange) -> None:
        self._last = change.n
        self.changes += 1
        self._log[change.course_id].append(change)
        record = await self._upstream.record(change.course_id)
        title = newest_title(record) if record is not None else None
        if title:
            self._titles[change.course_id] = title
        self._terminal.change(change, self._titles.get(change.course_id, change.course_id))

    def _take(self, push: Push) -> None:
        event = push.event
        if event is None:
            self._terminal.refused(push)
            raise DemoFailedError(f"a push was refused: {push.refusal}")
        if push.altered:
            raise DemoFailedError(f"{push.id} was sent again with another body")
        if not event.type.startswith("course."):
            return  # the sandbox's log does not contain test events and operational events
        reported = _reported(push, event)
        title = newest_title(event.data.course or {}) or self._titles.get(reported.course_id)
        latency = self._latency(push, reported)
        self._terminal.event(push, event, title or reported.course_id, latency)
        if push.times > 1:
            return
        self._events[reported.course_id].append(reported)
        self._check([reported.course_id], 0)
        self.verified += 1
        if latency is not None:
            self.latencies.append(latency)

    def _latency(self, push: Push, reported: ReportedEvent) -> float | None:
        """Seconds since the last change that the event can report."""
        latest = reported.timestamp + CLOCK_TOLERANCE
        times = [change.at for change in self._log[reported.course_id] if change.at <= latest]
        return (push.at - times[-1]).total_seconds() if times else None

    def _check(self, course_ids: Collection[str], settled: int) -> None:
        found = disagreements(
            self._known,
            [change for course_id in course_ids for change in self._log[course_id]],
            [event for course_id in course_ids for event in self._events[course_id]],
            settled=settled,
        )
        if found:
            raise DemoFailedError(
                "the events do not agree with the sandbox's log: " + "\n  ".join(found)
            )


def _reported(push: Push, event: Event) -> ReportedEvent:
    data = event.data
    if push.id is None or data.course_id is None or data.sequence is None:
        raise DemoFailedError(f"a {event.type} has no course or sequence: {push.body!r}")
    return ReportedEvent(
        id=push.id,
        type=event.type,
        timestamp=event.timestamp,
        course_id=data.course_id,
        sequence=data.sequence,
        previous_sequence=data.previous_sequence,
        changed=data.changed,
        reason=data.reason,
        evidence=data.evidence,
    )
