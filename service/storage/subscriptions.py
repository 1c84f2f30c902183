"""Subscriptions: what subscribers want, and the sealed secrets and headers of their pushes."""

from __future__ import annotations

import secrets as randomness
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from service.domain.access import ApiKey
from service.domain.announcements import Announcement, When, of_subscription
from service.domain.certificates import ClientCertificate
from service.domain.errors import ConflictError, LimitReachedError, NotFoundError
from service.domain.signing import Signature, SigningSecret, make_secret
from service.domain.subscriptions import Matcher, Subscription, state_of
from service.settings import MAX_SUBSCRIPTIONS
from service.storage import keys
from service.storage.announcing import NOTICE_LENGTH, LaneTable, Notices
from service.storage.counters import Counters
from service.storage.hashes import read_field, read_fields
from service.storage.ids import new_token
from service.storage.index import IndexPosition, page_of_ids
from service.storage.scripts import load
from service.storage.sealing import Sealer, owner_in_subscription

if TYPE_CHECKING:
    from redis.asyncio import Redis

_EDITS_TRIED = 20  # times an edit starts again because another came first
_SECRET_BYTES = 32
_SCANNED_AT_ONCE = 500  # subscriptions looked through for those of one owner

_decode = msgspec.json.Decoder(Subscription).decode
_decode_api_key = msgspec.json.Decoder(ApiKey).decode
_decode_secrets = msgspec.json.Decoder(list[SigningSecret]).decode
_decode_headers = msgspec.json.Decoder(dict[str, str]).decode
_decode_certificate = msgspec.json.Decoder(ClientCertificate).decode
_encode = msgspec.json.encode


def new_secret(signature: Signature = Signature.HMAC) -> str:
    """A new signing secret."""
    return make_secret(signature, randomness.token_bytes(_SECRET_BYTES))


class SubscriptionStore:
    """Stores subscriptions."""

    def __init__(
        self,
        redis: Redis,
        sealer: Sealer,
        counters: Counters,
        *,
        most: int = MAX_SUBSCRIPTIONS,
    ) -> None:
        self._redis = redis
        self._most = most
        self._sealer = sealer
        self._counters = counters
        self._write = load(redis, "write_subscription")
        self._delete = load(redis, "delete_subscription")
        self._resume = load(redis, "resume_subscription")
        self._read_all = load(redis, "read_subscriptions")

    async def create(
        self,
        subscription: Subscription,
        secrets: Sequence[str],
        headers: Mapping[str, str],
        certificate: ClientCertificate | None = None,
        *,
        read_up_to: str = "",
    ) -> bool:
        """Stores a new subscription; events committed from now on reach its lane. If that was
        filled from the log, `read_up_to` is from where the log would be read on; false if there
        is more to read, and then nothing was stored."""
        status = await self._store(
            subscription,
            b"",
            {
                "secrets": self._sealed(
                    subscription.id, "secrets", [SigningSecret(one) for one in secrets]
                ),
                "headers": self._sealed(subscription.id, "headers", dict(headers)),
                "client_certificate": self._sealed_certificate(subscription.id, certificate),
            },
            read_up_to,
        )
        if status == b"STALE":
            raise ConflictError(f"there is a subscription {subscription.id} already")
        if status == b"FULL":
            raise LimitReachedError(
                f"there are {self._most} subscriptions already; delete one, or raise "
                "COURSEWIRE_MAX_SUBSCRIPTIONS"
            )
        return status == b"OK"

    async def get(self, subscription_id: str) -> Subscription:
        """One subscription. Raises NotFoundError."""
        return _decode(await self._field(subscription_id, "record"))

    async def get_with_record(self, subscription_id: str) -> tuple[Subscription, bytes]:
        """One subscription, and its record as stored. Raises NotFoundError."""
        record = await self._field(subscription_id, "record")
        return _decode(record), record

    async def get_many(self, subscription_ids: Sequence[str]) -> list[Subscription | None]:
        """The subscriptions with these ids, None where there is none."""
        if not subscription_ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for subscription_id in subscription_ids:
                pipeline.hget(keys.subscription(subscription_id), "record")
            found = await pipeline.execute()
        return [None if record is None else _decode(record) for record in found]

    async def page(
        self, limit: int, after: IndexPosition | None = None
    ) -> tuple[list[Subscription], IndexPosition | None]:
        """At most `limit` subscriptions in the order of creation, and where to go on."""
        ids, position = await page_of_ids(self._redis, keys.SUBSCRIPTIONS, limit, after)
        found = await self.get_many(ids)
        return [subscription for subscription in found if subscription is not None], position

    async def page_owned(
        self, owner: str, limit: int, after: IndexPosition | None = None
    ) -> tuple[list[Subscription], IndexPosition | None]:
        """Like `page`, of those that `owner` created alone. It looks through all of them."""
        owned: list[Subscription] = []
        while True:
            page, after = await self.page(_SCANNED_AT_ONCE, after)
            owned += [one for one in page if one.owner == owner]
            if len(owned) > limit:
                last = owned[limit - 1]
                return owned[:limit], IndexPosition(last.created_at, last.id)
            if after is None:
                return owned, None

    async def update(
        self,
        subscription_id: str,
        change: Callable[[Subscription], Subscription],
        headers: Mapping[str, str] | None = None,
        certificate: ClientCertificate | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> Subscription:
        """Applies `change` to what is stored, and replaces the headers unless they are None, and
        the client certificate unless it is UNSET; None removes it.

        A lane that is sent to after the edit and holds anything is due at once; one that is
        not leaves the schedule and goes on collecting. Raises NotFoundError.
        """
        for _ in range(_EDITS_TRIED):
            record = await self._field(subscription_id, "record")
            after = change(_decode(record))
            sealed = (
                {}
                if headers is None
                else {"headers": self._sealed(subscription_id, "headers", dict(headers))}
            )
            if certificate is not msgspec.UNSET:
                sealed["client_certificate"] = self._sealed_certificate(
                    subscription_id, certificate
                )
            if await self._store(after, record, sealed) == b"OK":
                return after
        raise ConflictError(f"others are editing subscription {subscription_id}: try again")

    async def rotate(
        self,
        subscription_id: str,
        change: Callable[
            [Subscription, list[SigningSecret]], tuple[Subscription, list[SigningSecret]]
        ],
    ) -> tuple[Subscription, list[SigningSecret]]:
        """Applies `change` to the subscription and its secrets, which must not leave the
        subscription as it was: that is how a concurrent rotation is noticed.

        Raises NotFoundError, SealError or whatever `change` raises.
        """
        for _ in range(_EDITS_TRIED):
            record, sealed = await read_fields(
                self._redis, keys.subscription(subscription_id), ("record", "secrets")
            )
            if record is None or sealed is None:
                raise _not_found(subscription_id)
            after, secrets = change(_decode(record), self.opened_secrets(subscription_id, sealed))
            sealed = self._sealed(subscription_id, "secrets", secrets)
            if await self._store(after, record, {"secrets": sealed}) == b"OK":
                return after, secrets
        raise ConflictError(f"others are editing subscription {subscription_id}: try again")

    async def resume(self, subscription_id: str, now: int) -> Subscription:
        """Brings a subscription back to active, whatever stopped it, and makes everything on
        its lane due now. Raises NotFoundError."""
        for _ in range(_EDITS_TRIED):
            record = await self._field(subscription_id, "record")
            before = _decode(record)
            after = msgspec.structs.replace(
                before, paused=False, disabled_reason=None, updated_at=now
            )
            version, subscriptions, api_keys = await self.all_for_matching()
            matcher = Matcher(version, subscriptions, api_keys, now)
            lanes = LaneTable()
            announced = Notices(matcher, _resumed(before)).arguments(lanes)
            status = await self._resume(
                keys=[
                    keys.subscription(subscription_id),
                    keys.SUBSCRIPTIONS_VERSION,
                    keys.lane(subscription_id),
                    keys.lane_retries(subscription_id),
                    keys.lane_state(subscription_id),
                    keys.TOTALS,
                    keys.due("lanes"),
                    keys.claimed("lanes"),
                    keys.lease("lanes", subscription_id),
                    keys.replayed(subscription_id),
                    keys.replayed_retries(subscription_id),
                    keys.replay_queue(subscription_id),
                    keys.EVENTS,
                    await self._counters.key(),
                    *lanes.keys(),
                ],
                args=[
                    subscription_id,
                    record,
                    _encode(after),
                    new_token(),
                    version,
                    len(lanes.keys()),
                    len(announced) // NOTICE_LENGTH,
                    *lanes.arguments(),
                    *announced,
                ],
            )
            if status == b"OK":
                return after
        raise ConflictError(f"others are editing subscription {subscription_id}: try again")

    async def delete(
        self, subscription_id: str, check: Callable[[Subscription], None] | None = None
    ) -> None:
        """Deletes a subscription with its lane unless `check` raises. Raises NotFoundError."""
        while not await self._deleted(subscription_id, check):
            pass  # it was edited in between

    async def secrets(self, subscription_id: str) -> list[SigningSecret]:
        """The signing secrets, the newest first, some of them perhaps no longer in force. Raises
        NotFoundError or SealError."""
        return self.opened_secrets(subscription_id, await self._field(subscription_id, "secrets"))

    def opened_secrets(self, subscription_id: str, sealed: bytes) -> list[SigningSecret]:
        """The same of what was read otherwise. Raises SealError."""
        return _decode_secrets(
            self._sealer.open(sealed, owner_in_subscription(subscription_id, "secrets"))
        )

    async def headers(self, subscription_id: str) -> dict[str, str]:
        """The headers to send with each push. Raises NotFoundError or SealError."""
        return self.opened_headers(subscription_id, await self._field(subscription_id, "headers"))

    def opened_headers(self, subscription_id: str, sealed: bytes) -> dict[str, str]:
        """The same of what was read otherwise. Raises SealError."""
        return _decode_headers(
            self._sealer.open(sealed, owner_in_subscription(subscription_id, "headers"))
        )

    async def certificate(self, subscription_id: str) -> ClientCertificate | None:
        """The client certificate to show its receiver, if it has one. Raises SealError."""
        sealed = await read_field(
            self._redis, keys.subscription(subscription_id), "client_certificate"
        )
        return self.opened_certificate(subscription_id, sealed or b"")

    def opened_certificate(self, subscription_id: str, sealed: bytes) -> ClientCertificate | None:
        """The same of what was read otherwise, empty where there is none. Raises SealError."""
        if not sealed:
            return None
        owner = owner_in_subscription(subscription_id, "client_certificate")
        return _decode_certificate(self._sealer.open(sealed, owner))

    async def all_for_matching(self) -> tuple[int, list[Subscription], list[ApiKey]]:
        """Every subscription and every API key, and the version that all of them together
        have."""
        version, records, api_keys = await self._read_all(
            keys=[keys.SUBSCRIPTIONS_VERSION, keys.SUBSCRIPTIONS, keys.API_KEYS],
            args=[keys.subscription(""), keys.api_key("")],
        )
        return (
            int(version),
            [_decode(record) for record in records],
            [_decode_api_key(record) for record in api_keys],
        )

    async def _deleted(
        self, subscription_id: str, check: Callable[[Subscription], None] | None
    ) -> bool:
        record = b"" if check is None else await self._field(subscription_id, "record")
        if check is not None:
            check(_decode(record))
        status = await self._delete(
            keys=[
                keys.subscription(subscription_id),
                keys.SUBSCRIPTIONS,
                keys.SUBSCRIPTIONS_VERSION,
                keys.lane(subscription_id),
                keys.lane_dead(subscription_id),
                keys.TOTALS,
                keys.due("lanes"),
                keys.claimed("lanes"),
                keys.lease("lanes", subscription_id),
                keys.overdue("lanes"),
                keys.replays(subscription_id),
                keys.lane_state(subscription_id),
                keys.lane_retries(subscription_id),
                keys.lane_failing(subscription_id),
                keys.lane_dead_facts(subscription_id),
                keys.lane_untold(subscription_id),
                keys.attempts(subscription_id),
                keys.replayed(subscription_id),
                keys.replayed_retries(subscription_id),
                keys.replayed_failing(subscription_id),
                keys.replay_queue(subscription_id),
                keys.backfilled(subscription_id),
            ],
            args=[subscription_id, record, keys.replay(subscription_id, "")],
        )
        if status == 0:
            raise _not_found(subscription_id)
        return bool(status == 1)

    async def _store(
        self,
        subscription: Subscription,
        as_read: bytes,
        sealed: Mapping[str, bytes],
        read_up_to: str = "",
    ) -> bytes:
        status: bytes = await self._write(
            keys=[
                keys.subscription(subscription.id),
                keys.SUBSCRIPTIONS,
                keys.SUBSCRIPTIONS_VERSION,
                keys.lane(subscription.id),
                keys.due("lanes"),
                keys.claimed("lanes"),
                keys.EVENTS,
                keys.TOTALS,
                keys.replayed(subscription.id),
                keys.replay_queue(subscription.id),
                keys.lane_state(subscription.id),
            ],
            args=[
                subscription.id,
                subscription.created_at,
                as_read,
                _encode(subscription),
                state_of(subscription),
                read_up_to,
                self._most,
                *(item for pair in sealed.items() for item in pair),
            ],
        )
        return status

    async def _field(self, subscription_id: str, name: str) -> bytes:
        value = await read_field(self._redis, keys.subscription(subscription_id), name)
        if value is None:
            raise _not_found(subscription_id)
        return value

    def _sealed_certificate(
        self, subscription_id: str, certificate: ClientCertificate | None
    ) -> bytes:
        """Empty, which removes it, where there is none."""
        if certificate is None:
            return b""
        owner = owner_in_subscription(subscription_id, "client_certificate")
        return self._sealer.seal(_encode(certificate), owner)

    def _sealed(
        self, subscription_id: str, name: str, content: Sequence[SigningSecret] | Mapping[str, str]
    ) -> bytes:
        return self._sealer.seal(_encode(content), owner_in_subscription(subscription_id, name))


def _resumed(before: Subscription) -> list[Announcement]:
    """What a resume tells, of a lane that was parked and of a subscription that was disabled."""
    ends = [(When.UNPARKED, "parked")]
    if before.disabled_reason is not None:
        ends.append((When.ENABLED, "disabled"))
    return [
        of_subscription(before, "subscription.recovered", {"was": was, "by": "resume"}, when)
        for when, was in ends
    ]


def _not_found(subscription_id: str) -> NotFoundError:
    return NotFoundError(f"there is no subscription {subscription_id}")
