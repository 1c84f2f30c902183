"""The functions that RQ calls by name: each job runs a coroutine on the process's loop and waits
for it."""

from __future__ import annotations

from collections.abc import Sequence

from workers import upkeep
from workers.delivery import drain as deliverer
from workers.polling import poll as poller
from workers.rq import event_loop as process


def poll(claims: Sequence[tuple[str, int]]) -> None:
    """Polls the claimed integrations: pairs of an id and its claim token."""
    process.perform(poller.poll_batch, _pairs(claims))


def deliver(claims: Sequence[tuple[str, int]]) -> None:
    """Drains the claimed outboxes: pairs of an id and its claim token."""
    process.perform(deliverer.deliver_batch, _pairs(claims))


def maintain() -> None:
    """Removes data beyond its retention."""
    process.perform(upkeep.run)


def _pairs(claims: Sequence[Sequence[str | int]]) -> list[tuple[str, int]]:
    """The claims as they were enqueued: JSON has no tuples."""
    return [(str(owned_id), int(token)) for owned_id, token in claims]
