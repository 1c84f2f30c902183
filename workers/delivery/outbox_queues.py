"""The live and the replayed queue of an outbox, and the choice between them."""

from __future__ import annotations

from collections.abc import Iterator

from service.domain.delivery.fair_share import Mix
from service.domain.delivery.outbox_window import Entry
from service.storage.delivery.outboxes import OpenedOutbox, Outboxes, Queue
from service.storage.events.event_bodies import EventBodies
from workers.delivery.attempt_verdict import CompletedAttempt, Judgement, PendingAttempt
from workers.delivery.outbox_turn import OutboxTurn
from workers.delivery.queue_reader import QueueReader


class OutboxQueues:
    """Both queues during one turn. The replayed one exists only while there are replayed events."""

    def __init__(
        self, opened: OpenedOutbox, outboxes: Outboxes, bodies: EventBodies, turn: OutboxTurn
    ) -> None:
        self.live = QueueReader(
            outboxes,
            bodies,
            turn,
            Queue.LIVE,
            start=opened.start,
            scanned_at=opened.scanned_at,
            failing=opened.failing,
            entries=opened.entries,
        )
        self.replayed: QueueReader | None = None
        if opened.replayed or opened.unfed:
            self.replayed = QueueReader(
                outboxes,
                bodies,
                turn,
                Queue.REPLAYED,
                start=opened.replayed_start,
                scanned_at=opened.replayed_scanned_at,
                failing=opened.replayed_failing,
            )
        self._all = (self.live,) if self.replayed is None else (self.live, self.replayed)
        self._turn = turn
        self._mix = Mix()

    def __iter__(self) -> Iterator[QueueReader]:
        return iter(self._all)

    @property
    def any_prepared(self) -> bool:
        """Whether there is an event to send."""
        replayed = self.replayed
        return bool(self.live.prepared or (replayed is not None and replayed.prepared))

    @property
    def hungry(self) -> bool:
        """Whether replays may add more events."""
        return self.replayed is not None and self.replayed.hungry

    def choose(self, slots: int) -> QueueReader | None:
        """The queue whose next event is sent, None if none may be. `slots` is the maximum number of
        attempts in flight."""
        replayed = self.replayed
        kind = self._mix.choose(
            slots,
            live=bool(self.live.prepared),
            replayed=replayed is not None and bool(replayed.prepared),
            replayed_out=0 if replayed is None else replayed.in_flight,
        )
        return None if kind is None else replayed if kind == "replayed" else self.live

    def begin(self, queue: QueueReader) -> PendingAttempt:
        """Takes the next event of the chosen queue."""
        self._mix.begun("live" if queue is self.live else "replayed")
        return queue.begin()

    def ended(self, completed: CompletedAttempt) -> None:
        """An attempt has ended; its outcome is not recorded yet."""
        self._queue_of(completed.attempt.entry).ended()

    def recorded(self, judgement: Judgement) -> None:
        """Attempts have been recorded. Events that were added meanwhile are sent in this turn."""
        for one in judgement.recorded:
            self._queue_of(one.entry).recorded(one)
        for queue in self:
            if judgement.recovered:
                queue.retries_are_due()
            any_left = self._turn.any_live if queue is self.live else self._turn.any_replayed
            if any_left and not queue.prepared:
                queue.look_again()

    def _queue_of(self, entry: Entry) -> QueueReader:
        if not entry.replay:
            return self.live
        if self.replayed is None:
            raise AssertionError("a replayed entry without its queue")
        return self.replayed
