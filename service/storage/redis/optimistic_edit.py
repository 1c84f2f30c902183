"""Optimistic edits: read, change, and write unless the record has changed, otherwise try again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from service.domain.errors import ConflictError, StaleRecordError, StaleSubscriptionsError

_TRIES = 20  # times that an edit restarts because another came first

T = TypeVar("T")


async def edit(busy: str, attempt: Callable[[bool], Awaitable[T]]) -> T:
    """The result of `attempt`, which is called again while its records change concurrently, with
    True if the snapshot of the subscriptions must be read again.

    Raises ConflictError with `busy` if concurrent edits continue, or the errors of `attempt`.
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
