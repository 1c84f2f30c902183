"""Changes that wait or are held: those of a running poll, those under review, and decided ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from service.domain.courses.tracked_paths import TRACKED_PATHS
from service.domain.errors import ConflictError, StaleRecordError, StaleReviewError
from service.domain.polling.integration import Decision
from service.domain.polling.triage import Held
from service.domain.review.guards import Exceeded, Withheld, unpack_withheld
from service.storage.redis import keys
from service.storage.redis.keys import Key, ScheduleKeys
from service.storage.redis.scans import ScanCursor, cut_page
from service.storage.redis.scripts import Script, run
from service.storage.redis.scripts.statuses import RefusedError, Status

if TYPE_CHECKING:
    from redis.asyncio import Redis

_SCAN_COUNT = 1_000
_PATH = b"path"
_decode_exceeded = msgspec.json.Decoder(list[Exceeded]).decode


class Review(msgspec.Struct, frozen=True, kw_only=True):
    """The held changes: the start (epoch ms), their numbers, and the limits that the last poll
    which held changes found exceeded. `version` changes with the set."""

    version: int
    since: int | None
    held: Held
    exceeded: list[Exceeded]


class HeldChange(msgspec.Struct, frozen=True):
    """One held change in lists; `id` is the course's."""

    id: str
    withheld: Withheld


class DecideReview(Script[None]):
    """Stores the decision on the held changes.

    It moves exactly this set aside for the next turn; changes that are held later belong to another
    review.

    Refuses with EPOCH, with STALE unless `version` is the review's, with NONE, or with BUSY.
    """

    integration: Key
    held: Key
    review: Key
    decided: Key
    schedule: ScheduleKeys = keys.schedule("polls")
    id: str
    epoch: str
    version: int
    decision: Decision


class Reviews:
    """Reads reviews and stores decisions. Commits of polls write the waiting and held changes."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def get(self, integration_id: str, epoch: str) -> Review:
        """The held changes at present; `since` is None if there are none."""
        found = cast(
            "dict[bytes, bytes]",
            await self._redis.hgetall(keys.review(integration_id, epoch)),
        )
        exceeded = found.pop(b"exceeded", b"[]")
        counts = {name: int(value) for name, value in found.items()}
        return Review(
            version=counts.get(b"version", 0),
            since=counts.get(b"since"),
            held=Held(
                deleted=counts.get(b"T", 0) + counts.get(b"A", 0),
                changed={
                    TRACKED_PATHS[int(name.removeprefix(_PATH))]: count
                    for name, count in counts.items()
                    if name.startswith(_PATH) and count > 0
                },
            ),
            exceeded=_decode_exceeded(exceeded),
        )

    async def held(
        self, integration_id: str, epoch: str, course_ids: Sequence[str]
    ) -> dict[str, Withheld]:
        """The held changes of those among `course_ids` that have any."""
        return await self._among(keys.held(integration_id, epoch), course_ids)

    async def decided_among(
        self, integration_id: str, epoch: str, course_ids: Sequence[str]
    ) -> dict[str, Withheld]:
        """The decided changes of those among `course_ids` that have any."""
        return await self._among(keys.decided(integration_id, epoch), course_ids)

    async def _among(self, key: str, course_ids: Sequence[str]) -> dict[str, Withheld]:
        if not course_ids:
            return {}
        found = cast("list[bytes | None]", await self._redis.hmget(key, list(course_ids)))
        return {
            course_id: unpack_withheld(packed)
            for course_id, packed in zip(course_ids, found, strict=True)
            if packed is not None
        }

    async def page(
        self, integration_id: str, epoch: str, limit: int, after: ScanCursor | None
    ) -> tuple[list[HeldChange], ScanCursor | None]:
        """At most `limit` held changes from a position (None: the start), and the next position."""
        place = after or ScanCursor(0)
        cursor, found = cast(
            "tuple[int, dict[bytes, bytes]]",
            await self._redis.hscan(
                keys.held(integration_id, epoch), cursor=place.cursor, count=limit
            ),
        )
        rows = (
            HeldChange(name.decode(), unpack_withheld(packed)) for name, packed in found.items()
        )
        return cut_page(rows, place, cursor, limit)

    async def decide(
        self, integration_id: str, epoch: str, version: int, decision: Decision
    ) -> None:
        """Stores the decision on exactly the set with the given version.

        Raises ConflictError if no changes are held or the last decision is still being carried out,
        StaleReviewError if the set has changed since, EpochEndedError.
        """
        decide = DecideReview(
            integration=keys.integration(integration_id),
            held=keys.held(integration_id, epoch),
            review=keys.review(integration_id, epoch),
            decided=keys.decided(integration_id, epoch),
            id=integration_id,
            epoch=epoch,
            version=version,
            decision=decision,
        )
        try:
            await run(self._redis, decide)
        except StaleRecordError:
            raise StaleReviewError from None
        except RefusedError as refused:
            if refused.status is Status.NONE:
                message = f"nothing of integration {integration_id} is held for review"
            else:
                message = (
                    f"the last decision on integration {integration_id} is still being carried out"
                )
            raise ConflictError(message) from None

    # --- waiting and decided changes -----------------------------------------------------

    async def waiting_deletions(self, integration_id: str, poll_id: str) -> int:
        """How many deletions wait for the end of a poll."""
        deletions = 0
        async for _, packed in self._redis.hscan_iter(
            keys.waiting(integration_id, poll_id), count=_SCAN_COUNT
        ):
            deletions += unpack_withheld(packed).kind != "update"
        return deletions

    async def some_waiting(
        self, integration_id: str, poll_id: str, most: int
    ) -> dict[str, Withheld]:
        """Some of the changes that wait for the end of a poll."""
        return await self._some(keys.waiting(integration_id, poll_id), most)

    async def some_decided(self, integration_id: str, epoch: str, most: int) -> dict[str, Withheld]:
        """Some of the decided changes that are not carried out yet."""
        return await self._some(keys.decided(integration_id, epoch), most)

    async def _some(self, key: str, most: int) -> dict[str, Withheld]:
        found = cast("list[bytes]", await self._redis.hrandfield(key, most, withvalues=True) or [])
        return {
            course_id.decode(): unpack_withheld(packed)
            for course_id, packed in zip(found[::2], found[1::2], strict=True)
        }
