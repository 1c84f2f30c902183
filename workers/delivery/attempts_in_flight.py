"""The attempts of a turn that are in flight: each is signed and posted."""

from __future__ import annotations

import asyncio
import math
import time
from itertools import islice

from service.clients.webhook_sender import Receiver
from service.clock import now_ms
from service.domain.errors import LeaseLostError
from service.domain.events.event import CONTENT_TYPES
from workers.delivery.attempt_verdict import CompletedAttempt, PendingAttempt
from workers.delivery.outbox_turn import OutboxTurn
from workers.send_share import SendShare

REPLAY_HEADERS = {"coursewire-replay": "true"}


class AttemptsInFlight:
    """Posts events to one subscriber, several at a time. `tasks` are the uncollected attempts,
    oldest first, with their start times."""

    def __init__(self, receiver: Receiver, turn: OutboxTurn, share: SendShare) -> None:
        self.tasks: dict[asyncio.Task[CompletedAttempt], float] = {}
        self._receiver = receiver
        self._turn = turn
        self._share = share

    def seconds_to_room(self, slots: int) -> float:
        """Seconds until another attempt may begin: 0 if one may begin now, infinite if an attempt
        must end before. `slots` is how many attempts may be in flight."""
        if len(self.tasks) >= slots:
            return math.inf
        share = self._share.attempts
        if len(self.tasks) < share:
            return 0
        oldest_in_share = next(islice(reversed(self.tasks.values()), share - 1, None))
        return max(0, oldest_in_share + self._share.fast_seconds - time.monotonic())

    def begin(self, attempt: PendingAttempt) -> None:
        """Begins an attempt."""
        begun = time.monotonic()
        task = asyncio.create_task(self._post(attempt, begun))
        self.tasks[task] = begun
        task.add_done_callback(self._end)

    def collect(self) -> list[CompletedAttempt]:
        """The attempts that have ended since the last call. Raises LeaseLostError if that was the
        reason why one could not begin."""
        ended = [task for task in self.tasks if task.done()]
        for task in ended:
            del self.tasks[task]
        return [task.result() for task in ended]

    def _end(self, task: asyncio.Task[CompletedAttempt]) -> None:
        if task in self.tasks:
            self._turn.progress.set()

    async def _post(self, attempt: PendingAttempt, begun: float) -> CompletedAttempt:
        self._share.note_delay(time.monotonic() - begun)
        turn, permissions = self._turn, self._turn.permissions
        if turn.lease_is_over():
            raise LeaseLostError
        at = now_ms()
        entry, event = attempt.entry, attempt.event
        headers = {
            **permissions.headers,
            "content-type": CONTENT_TYPES[entry.rendering.format],
            **(REPLAY_HEADERS if entry.replay else {}),
            **permissions.signer.headers(event.id, at, event.body),
        }
        outcome = await self._receiver.post(
            turn.subscription.url,
            headers,
            event.body,
            timeout=turn.subscription.timeout_seconds,
            redactor=permissions.redactor,
            certificate=permissions.certificate,
        )
        return CompletedAttempt(attempt, outcome, at, turn.redis_ms(at))
