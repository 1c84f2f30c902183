"""Optimistic edits: read, change, write if the record is still as it was read, else again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.domain.errors import ConflictError, StaleRecordError, StaleSubscriptionsError

_TRIES = 20  # times an edit starts again because another came first

T = TypeVar("T")


async def edit(busy: str, attempt: Callable[[bool], Awaitable[T]]) -> T:
    """What `attempt` returns at last. It is asked again while what it builds on changes under it,
    with True if the snapshot of the subscriptions has to be read anew.

    Raises ConflictError, which says `busy`, if others go on editing, or what `attempt` raises.
    """
    fresh = False
    for _ in range(_TRIES):
        try:
            return await attempt(fresh)
        except StaleRecordError:
            fresh = False
        except StaleSubscriptionsError:
            fresh = True
    raise ConflictError(f"{busy}: try again")
