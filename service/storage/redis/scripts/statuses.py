"""The statuses of scripts that refuse, and their errors."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NoReturn

from service.domain.errors import (
    CoursewireError,
    EpochEndedError,
    IntegrationExistsError,
    LeaseLostError,
    StaleRecordError,
    StaleSubscriptionsError,
)


class Status(StrEnum):
    """Why a script refused. The conflicting id follows `EXISTS`, after a space."""

    LEASE = "LEASE"  # the lease is lost
    # the poll's progress differs from the stored one: another commit came before
    PROGRESS = "PROGRESS"
    EPOCH = "EPOCH"  # the epoch ended
    SUBSCRIPTIONS = "SUBSCRIPTIONS"  # they changed since the snapshot
    STALE = "STALE"  # a record changed after it was read
    EXISTS = "EXISTS"  # the upstream integration is registered; its id
    GONE = "GONE"  # the object does not exist
    FULL = "FULL"  # the limit is reached
    BEHIND = "BEHIND"  # the log has events that were not read
    BUSY = "BUSY"  # the last decision is being carried out
    NONE = "NONE"  # no change is held
    OVER = "OVER"  # the replay has ended


class RefusedError(CoursewireError):
    """A script refused; nothing was written. The stores convert this to a specific error."""

    def __init__(self, status: Status) -> None:
        super().__init__(f"a script refused: {status}")
        self.status = status


_ERRORS: dict[Status, Callable[[str], CoursewireError]] = {
    Status.LEASE: lambda _: LeaseLostError(),
    Status.PROGRESS: lambda _: LeaseLostError(),
    Status.EPOCH: lambda _: EpochEndedError(),
    Status.SUBSCRIPTIONS: lambda _: StaleSubscriptionsError(),
    Status.STALE: lambda _: StaleRecordError(),
    Status.EXISTS: IntegrationExistsError,
}


def raise_refusal(answer: bytes) -> NoReturn:
    """Raises the error of a script's refusal."""
    name, _, said = answer.decode().partition(" ")
    status = Status(name)
    raise _ERRORS[status](said) if status in _ERRORS else RefusedError(status)
