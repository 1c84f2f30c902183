"""The attempts of a turn that have begun and not ended: each is signed and posted."""

from __future__ import annotations

import asyncio

from service.clients.webhook_sender import Receiver
from service.clock import now_ms
from service.domain.errors import LeaseLostError
from service.domain.events.event import CONTENT_TYPES
from workers.delivery.attempt_verdict import CompletedAttempt, PendingAttempt
from workers.delivery.outbox_turn import OutboxTurn

REPLAY_HEADERS = {"coursewire-replay": "true"}
GATHER_SECONDS = 0.002  # that attempts which have ended wait for others, to be recorded together


class AttemptsInFlight:
    """Posts events to one subscriber, several at a time. `tasks` are the attempts that have not
    been collected."""

    def __init__(self, receiver: Receiver, turn: OutboxTurn) -> None:
        self.tasks: set[asyncio.Task[CompletedAttempt]] = set()
        self.quiet = False  # the end of an attempt is of no use until all have ended
        self._ended: list[asyncio.Task[CompletedAttempt]] = []
        self._gathering: asyncio.TimerHandle | None = None
        self._gathered = False
        self._receiver = receiver
        self._turn = turn

    def begin(self, attempt: PendingAttempt) -> None:
        """Begins an attempt."""
        task = asyncio.create_task(self._post(attempt))
        self.tasks.add(task)
        task.add_done_callback(self._end)

    def collect(self) -> list[CompletedAttempt]:
        """The attempts that have ended since the last call. Raises LeaseLostError where one could
        not begin for that reason."""
        ended, self._ended = self._ended, []
        self.tasks.difference_update(ended)
        return [task.result() for task in ended]

    def _end(self, task: asyncio.Task[CompletedAttempt]) -> None:
        self._ended.append(task)
        if not self.quiet or len(self._ended) == len(self.tasks):
            self._turn.progress.set()

    def gathered(self) -> bool:
        """Whether what has been collected has waited for the other attempts for long enough. The
        first call begins the wait."""
        if self.tasks and not self._gathered:
            if self._gathering is None:
                loop = asyncio.get_running_loop()
                self._gathering = loop.call_later(GATHER_SECONDS, self._end_gathering)
            self.quiet = True
            return False
        if self._gathering is not None:
            self._gathering.cancel()
        self._gathering, self._gathered = None, False
        return True

    def _end_gathering(self) -> None:
        self._gathered = True
        self._turn.progress.set()

    async def _post(self, attempt: PendingAttempt) -> CompletedAttempt:
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
