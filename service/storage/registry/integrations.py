"""Integrations: registrations, their polling state, and requested polls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from service.domain.errors import (
    ConflictError,
    LimitReachedError,
    NotFoundError,
    StaleRecordError,
)
from service.domain.events.operational import of_epoch
from service.domain.polling.integration import (
    Credential,
    Decision,
    Integration,
    PollingState,
    PollKind,
    PollRecord,
    Problem,
)
from service.domain.polling.observations import Observed
from service.domain.polling.progress import PollProgress
from service.ids import new_id
from service.settings import MAX_INTEGRATIONS
from service.storage.events.announcing import Notices, announced
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from service.storage.redis.hashes import read_field, read_fields
from service.storage.redis.optimistic_edit import edit
from service.storage.redis.paging import IndexPosition, page_of_ids
from service.storage.redis.scripts import run
from service.storage.redis.scripts.statuses import RefusedError
from service.storage.registry.filters import RecordFilter
from service.storage.registry.integration_scripts import (
    DeleteIntegration,
    EditIntegration,
    ListIntegrations,
    MadeCredential,
    RegisterIntegration,
    RequestPoll,
)
from service.storage.registry.matcher_cache import Matchers

if TYPE_CHECKING:
    from redis.asyncio import Redis

_decode = msgspec.json.Decoder(Integration).decode
_decode_credential = msgspec.json.Decoder(Credential).decode
_decode_problem = msgspec.json.Decoder(Problem).decode
_decode_observed = msgspec.json.Decoder(Observed).decode
_decode_poll = msgspec.json.Decoder(PollRecord).decode
_decode_progress = msgspec.json.Decoder(PollProgress).decode
_encode = msgspec.json.encode

Stored = tuple[Integration, PollingState]
PrepareCredential = Callable[[], Awaitable[tuple[str, MadeCredential | None]]]


def upstream_identity(base_url: str, upstream_id: str) -> str:
    """The identity of a registration: two with the same identity would report every change
    twice."""
    return f"{base_url} {upstream_id}"


def poll_id_of(progress: bytes | None) -> str:
    """The id of the poll in a stored progress, empty if there is none."""
    return _decode_progress(progress).poll_id if progress else ""


class IntegrationStore:
    """Stores integrations."""

    def __init__(
        self,
        redis: Redis,
        matchers: Matchers,
        counters: Counters,
        *,
        most: int = MAX_INTEGRATIONS,
    ) -> None:
        self._redis = redis
        self._matchers = matchers
        self._counters = counters
        self.most = most

    async def create(
        self, integration: Integration, prepare: PrepareCredential | None = None
    ) -> None:
        """Registers an integration; its first poll is due at once unless it is paused.

        `prepare` finds the credential with its values, or creates one, which is stored with it.
        Raises NotFoundError if the credential does not exist, IntegrationExistsError,
        LimitReachedError.
        """

        async def attempt(_: bool) -> None:
            credential_id, made = integration.credential_id, None
            if prepare is not None:
                credential_id, made = await prepare()
            registered = msgspec.structs.replace(integration, credential_id=credential_id)
            record, base_url = None, made.base_url if made is not None else ""
            if made is None:
                try:
                    record, credential = await self._credential(credential_id)
                except NotFoundError:
                    if prepare is None:
                        raise
                    raise StaleRecordError from None  # it was deleted meanwhile: another is created
                base_url = credential.base_url
            register = RegisterIntegration(
                integration=keys.integration(integration.id),
                credential=keys.credential(credential_id),
                id=integration.id,
                created_at=integration.created_at,
                record=_encode(registered),
                epoch=new_id("ep"),
                upstream=upstream_identity(base_url, integration.upstream_id),
                credential_as_read=record,
                made=made,
                paused=integration.paused,
                most=self.most,
            )
            await run(self._redis, register)

        try:
            await edit("another request is editing its credential", attempt)
        except RefusedError:
            raise LimitReachedError(
                f"there are {self.most} integrations already; delete one, or raise "
                "COURSEWIRE_MAX_INTEGRATIONS"
            ) from None

    async def get(self, integration_id: str) -> Stored:
        """One integration and its polling state. Raises NotFoundError."""
        found = await self.get_many([integration_id])
        if (stored := found[0]) is None:
            raise _not_found(integration_id)
        return stored

    async def get_many(self, integration_ids: Sequence[str]) -> list[Stored | None]:
        """The integrations with these ids, None for a missing one."""
        if not integration_ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for integration_id in integration_ids:
                pipeline.hgetall(keys.integration(integration_id))
            found = await pipeline.execute()
        return [_read(fields) if fields else None for fields in found]

    async def page(
        self, limit: int, after: IndexPosition | None = None
    ) -> tuple[list[Stored], IndexPosition | None]:
        """At most `limit` integrations in the order of creation, and the next position."""
        ids, position = await page_of_ids(self._redis, keys.INTEGRATIONS, limit, after)
        return [stored for stored in await self.get_many(ids) if stored is not None], position

    async def search(
        self, wanted: RecordFilter, limit: int, after: IndexPosition | None = None
    ) -> tuple[list[Integration], IndexPosition | None]:
        """Those among the next `limit` integrations that may match a filter, and the next
        position."""
        ids, position = await page_of_ids(self._redis, keys.INTEGRATIONS, limit, after)
        found = await run(self._redis, ListIntegrations(ids=ids, filter=wanted))
        return [*map(_decode, found)], position

    async def update(
        self, integration_id: str, change: Callable[[Integration], Integration]
    ) -> Integration:
        """Applies `change` to the stored record.

        Another `upstream_id`, or a credential with another base URL, starts a new epoch; so does
        another `baseline` before the baseline is complete, because half of one cannot be reported.
        Other changes keep the state. Raises NotFoundError, IntegrationExistsError.
        """

        async def attempt(fresh: bool) -> Integration:
            record, epoch, poll_id = await self._record(integration_id)
            before = _decode(record)
            after = change(before)
            old_record, old_credential = await self._credential(before.credential_id)
            new_record, new_credential = await self._credential(after.credential_id)
            old_upstream = upstream_identity(old_credential.base_url, before.upstream_id)
            new_upstream = upstream_identity(new_credential.base_url, after.upstream_id)
            moved = new_upstream != old_upstream
            begins = new_id("ep") if moved or after.baseline is not before.baseline else None
            announcements = (
                [of_epoch(after, begins, epoch, "upstream" if moved else "baseline")]
                if begins
                else []
            )
            notices = Notices(await self._matchers.current(fresh=fresh), announcements)
            edited = EditIntegration(
                integration=keys.integration(integration_id),
                credential_before=keys.credential(before.credential_id),
                credential_after=keys.credential(after.credential_id),
                kept=keys.of_epoch(integration_id, epoch, poll_id),
                announced=await announced(notices, self._counters),
                id=integration_id,
                as_read=record,
                record=_encode(after),
                epoch=epoch,
                next_epoch=begins,
                moved=moved,
                upstream_before=old_upstream,
                upstream_after=new_upstream,
                credential_before_as_read=old_record,
                credential_after_as_read=new_record,
                credential_before_id=before.credential_id,
                is_inline=old_credential.inline,
                place=_place_in_schedule(before, after),
            )
            await run(self._redis, edited)
            return after

        return await edit(f"another request is editing integration {integration_id}", attempt)

    async def delete(
        self, integration_id: str, check: Callable[[Integration], None] | None = None
    ) -> None:
        """Deletes an integration unless `check` raises, and ends its epoch; events on outboxes are
        still sent. Raises NotFoundError."""

        async def attempt(_: bool) -> None:
            record, epoch, poll_id = await self._record(integration_id)
            integration = _decode(record)
            if check is not None:
                check(integration)
            credential_record, credential = await self._credential(integration.credential_id)
            delete = DeleteIntegration(
                integration=keys.integration(integration_id),
                credential=keys.credential(integration.credential_id),
                lease=keys.lease("polls", integration_id),
                polls=keys.polls(integration_id),
                poll_order=keys.poll_order(integration_id),
                kept=keys.of_epoch(integration_id, epoch, poll_id),
                id=integration_id,
                as_read=record,
                epoch=epoch,
                upstream=upstream_identity(credential.base_url, integration.upstream_id),
                credential_as_read=credential_record,
                credential_id=credential.id,
                is_inline=credential.inline,
            )
            await run(self._redis, delete)

        await edit(f"another request is editing integration {integration_id}", attempt)

    async def request_poll(self, integration_id: str, kind: PollKind, now_ms: int) -> PollRecord:
        """Requests a poll now and returns it as queued, or the running one.

        The request joins a running poll of the same or wider kind, and another poll follows at
        once; it also joins a queued poll, and a queued delta becomes a full poll on request. Raises
        NotFoundError, or ConflictError if the integration is paused.
        """

        async def attempt(_: bool) -> PollRecord:
            fields = await self._fields(integration_id)
            integration, polling = _read(fields)
            if integration.paused:
                raise ConflictError(f"integration {integration_id} is paused: resume it first")
            under_way = _progress(fields)
            queued = None
            if polling.requested_id not in (None, under_way.poll_id if under_way else None):
                queued = await self._find_poll(integration_id, polling.requested_id or "")
            joined = queued is None and under_way is not None and under_way.kind in (kind, "full")
            if under_way is not None and joined:
                poll = under_way.record()
            elif queued is None:
                poll = PollRecord(id=new_id("poll"), kind=kind, state="queued", requested_at=now_ms)
            elif kind == "full":
                poll = msgspec.structs.replace(queued, kind="full")
            else:
                poll = queued
            request = RequestPoll(
                integration=keys.integration(integration_id),
                polls=keys.polls(integration_id),
                poll_order=keys.poll_order(integration_id),
                id=integration_id,
                queued=polling.requested_id,
                under_way=under_way is not None,
                joins=joined,
                kind=poll.kind,
                poll_id=poll.id,
                poll=_encode(poll),
            )
            await run(self._redis, request)
            return poll

        return await edit(f"other requests are starting polls of {integration_id}", attempt)

    async def list_polls(self, integration_id: str) -> list[PollRecord]:
        """The running poll, then the stored ones, the latest first. Raises NotFoundError."""
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(keys.integration(integration_id))
            pipeline.zrange(keys.poll_order(integration_id), 0, -1, desc=True)
            pipeline.hgetall(keys.polls(integration_id))
            fields, order, kept = await pipeline.execute()
        if not fields:
            raise _not_found(integration_id)
        under_way = _progress(fields)
        polls = [_decode_poll(kept[poll_id]) for poll_id in order if poll_id in kept]
        if under_way is None:
            return polls
        return [under_way.record(), *(poll for poll in polls if poll.id != under_way.poll_id)]

    async def latest_polls(self, integration_ids: Sequence[str]) -> list[PollRecord | None]:
        """The latest started poll of each, None for one without polls."""
        if not integration_ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for integration_id in integration_ids:
                # At most one poll is queued, so the second at the latest has begun.
                pipeline.zrange(keys.poll_order(integration_id), 0, 1, desc=True)
                pipeline.hget(keys.integration(integration_id), "poll")
            found = await pipeline.execute()
            for integration_id, order in zip(integration_ids, found[::2], strict=True):
                pipeline.hmget(keys.polls(integration_id), order or [""])
            kept = await pipeline.execute()
        return [
            _decode_progress(poll).record() if poll else _first_begun(polls)
            for poll, polls in zip(found[1::2], kept, strict=True)
        ]

    async def get_poll(self, integration_id: str, poll_id: str) -> PollRecord:
        """One poll. Raises NotFoundError."""
        under_way = await read_field(self._redis, keys.integration(integration_id), "poll")
        if under_way and (progress := _decode_progress(under_way)).poll_id == poll_id:
            return progress.record()
        poll = await self._find_poll(integration_id, poll_id)
        if poll is None:
            raise NotFoundError(
                f"there is no poll {poll_id} of {integration_id}, or it is no longer listed"
            )
        return poll

    async def _find_poll(self, integration_id: str, poll_id: str) -> PollRecord | None:
        poll = await read_field(self._redis, keys.polls(integration_id), poll_id)
        return None if poll is None else _decode_poll(poll)

    async def _record(self, integration_id: str) -> tuple[bytes, str, str]:
        """The record, the epoch, and the id of the poll under way."""
        record, epoch, poll = await read_fields(
            self._redis, keys.integration(integration_id), ["record", "epoch", "poll"]
        )
        if record is None or epoch is None:
            raise _not_found(integration_id)
        return record, epoch.decode(), poll_id_of(poll)

    async def _fields(self, integration_id: str) -> dict[bytes, bytes]:
        fields = cast(
            "dict[bytes, bytes]", await self._redis.hgetall(keys.integration(integration_id))
        )
        if not fields:
            raise _not_found(integration_id)
        return fields

    async def _credential(self, credential_id: str) -> tuple[bytes, Credential]:
        record = await read_field(self._redis, keys.credential(credential_id), "record")
        if record is None:
            raise NotFoundError(f"there is no credential {credential_id}")
        return record, _decode_credential(record)


def _place_in_schedule(before: Integration, after: Integration) -> Literal["wake", "stop", "leave"]:
    """A paused integration leaves the schedule; other polling settings make it due."""
    if after.paused:
        return "stop"
    unconcerned = msgspec.structs.replace(
        before,
        name=after.name,
        external_id=after.external_id,
        labels=after.labels,
        updated_at=after.updated_at,
    )
    return "leave" if unconcerned == after else "wake"


def _first_begun(polls: Sequence[bytes | None]) -> PollRecord | None:
    for encoded in polls:
        if encoded is not None and (poll := _decode_poll(encoded)).state != "queued":
            return poll
    return None


def _read(fields: dict[bytes, bytes]) -> Stored:
    problem, observed = fields.get(b"problem"), fields.get(b"observed")
    polling = PollingState(
        epoch=fields[b"epoch"].decode(),
        previous_epoch=_text(fields, b"previous_epoch"),
        baselined=fields.get(b"baselined") == b"1",
        watermark=_number(fields, b"watermark"),
        last_delta_at=_number(fields, b"last_delta_at"),
        last_full_at=_number(fields, b"last_full_at"),
        full_retry_at=_number(fields, b"full_retry_at"),
        course_count=_number(fields, b"course_count") or 0,
        quarantined=_number(fields, b"quarantined") or 0,
        held=_number(fields, b"held") or 0,
        decision=cast("Decision | None", _text(fields, b"decision")),
        failures=_number(fields, b"failures") or 0,
        problem=_decode_problem(problem) if problem else None,
        clock_skew_ms=_number(fields, b"clock_skew_ms"),
        requested=cast("PollKind | None", _text(fields, b"requested")),
        requested_id=_text(fields, b"requested_id"),
        observed=_decode_observed(observed) if observed else Observed(),
    )
    return _decode(fields[b"record"]), polling


def _progress(fields: dict[bytes, bytes]) -> PollProgress | None:
    """The running poll."""
    poll = fields.get(b"poll")
    return _decode_progress(poll) if poll else None


def _number(fields: dict[bytes, bytes], name: bytes) -> int | None:
    value = fields.get(name)
    return int(value) if value else None


def _text(fields: dict[bytes, bytes], name: bytes) -> str | None:
    value = fields.get(name)
    return value.decode() if value else None


def _not_found(integration_id: str) -> NotFoundError:
    return NotFoundError(f"there is no integration {integration_id}")
