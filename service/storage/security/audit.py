"""The audit trail: the actor, time and fields of each change, without the values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from service.domain.events.identifiers import position_ms
from service.storage.redis import keys
from service.storage.redis.streams import read_stream_back

if TYPE_CHECKING:
    from redis.asyncio import Redis

MAX_ENTRIES: Final = 10_000  # kept, approximately; the oldest are removed first


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An action, successful or not. `fields` are the names of the sent fields."""

    action: str
    actor: str | None = None
    object_id: str | None = None
    fields: tuple[str, ...] = ()
    request_id: str | None = None
    address: str | None = None


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A record with its position; `at` is epoch ms by the clock of Redis."""

    position: str
    at: int
    record: AuditRecord


_decode = msgspec.json.Decoder(AuditRecord).decode


class Audit:
    """Writes and reads the trail."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def note(self, record: AuditRecord) -> None:
        """Appends an entry."""
        await self._redis.xadd(
            keys.AUDIT, {"d": msgspec.json.encode(record)}, maxlen=MAX_ENTRIES, approximate=True
        )

    async def page(self, limit: int, before: str | None) -> tuple[list[AuditEntry], str | None]:
        """At most `limit` records before the position `before` (None: from the end), newest first,
        and the position to continue from, None at the oldest."""
        found = await read_stream_back(self._redis, keys.AUDIT, before, limit + 1)
        entries = [
            AuditEntry(
                position=position.decode(),
                at=position_ms(position.decode()),
                record=_decode(fields[b"d"]),
            )
            for position, fields in found[:limit]
        ]
        return entries, entries[-1].position if len(found) > limit else None
