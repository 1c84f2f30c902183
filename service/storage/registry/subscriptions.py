"""Subscriptions: their settings, and the encrypted secrets and headers of their pushes."""

from __future__ import annotations

import secrets as randomness
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import msgspec

from service.domain.access.grants import ApiKey
from service.domain.delivery.subscription import Matcher, Subscription, state_of
from service.domain.egress.certificates import ClientCertificate
from service.domain.errors import (
    ConflictError,
    LimitReachedError,
    NotFoundError,
    StaleRecordError,
)
from service.domain.events.operational import Announcement, When, of_subscription
from service.domain.signatures.signing import Signature, SigningSecret, make_secret
from service.ids import new_token
from service.settings import MAX_SUBSCRIPTIONS
from service.storage.events.announcing import Notices, announced
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from service.storage.redis.hashes import read_field, read_fields
from service.storage.redis.optimistic_edit import edit
from service.storage.redis.paging import IndexPosition, all_ids, newest_ids, page_of_ids
from service.storage.redis.scripts import run
from service.storage.redis.scripts.statuses import RefusedError, Status
from service.storage.registry.filters import EVERYTHING, RecordFilter
from service.storage.registry.subscription_scripts import (
    DeleteSubscription,
    FindOwned,
    ListSubscriptions,
    ReadSubscriptions,
    ResumeSubscription,
    WriteSubscription,
)
from service.storage.security.encryption import Encryptor, owner_in_subscription

if TYPE_CHECKING:
    from redis.asyncio import Redis

_SECRET_BYTES = 32
_DECRYPTED = 8192  # values that are kept decrypted, two for each subscription ...
_DECRYPTED_BYTES = 1024  # ... unless they are larger

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
        encryptor: Encryptor,
        counters: Counters,
        *,
        most: int = MAX_SUBSCRIPTIONS,
    ) -> None:
        self._redis = redis
        self.most = most
        self._encryptor = encryptor
        self._counters = counters
        self._decrypted = lru_cache(maxsize=_DECRYPTED)(encryptor.decrypt)

    async def create(
        self,
        subscription: Subscription,
        secrets: Sequence[str],
        headers: Mapping[str, str],
        certificate: ClientCertificate | None = None,
        *,
        read_up_to: str = "",
        begins: int | None = None,
    ) -> bool:
        """Stores a new subscription; events committed from now on reach its outbox.

        If the outbox was filled from the log, `read_up_to` is the next position in the log and
        `begins` the first event's time, epoch ms. Returns false, and stores nothing, if the log has
        more to read.
        """
        opened = [SigningSecret(one) for one in secrets]
        try:
            await self._store(
                subscription,
                None,
                secrets=self._encrypted(subscription.id, "secrets", opened),
                headers=self._encrypted(subscription.id, "headers", dict(headers)),
                client_certificate=self._encrypted_certificate(subscription.id, certificate),
                read_up_to=read_up_to or None,
                begins=begins,
            )
        except StaleRecordError:
            raise ConflictError(f"there is a subscription {subscription.id} already") from None
        except RefusedError as refused:
            if refused.status is Status.BEHIND:
                return False
            raise LimitReachedError(
                f"there are {self.most} subscriptions already; delete one, or raise "
                "COURSEWIRE_MAX_SUBSCRIPTIONS"
            ) from None
        return True

    async def get(self, subscription_id: str) -> Subscription:
        """One subscription. Raises NotFoundError."""
        return _decode(await self._field(subscription_id, "record"))

    async def begins(self, subscription_id: str) -> int:
        """The time from which a subscription receives events, epoch ms. Raises NotFoundError."""
        return int(await self._field(subscription_id, "begins"))

    async def get_with_record(self, subscription_id: str) -> tuple[Subscription, bytes]:
        """One subscription, and its record as stored. Raises NotFoundError."""
        record = await self._field(subscription_id, "record")
        return _decode(record), record

    async def get_many(
        self, subscription_ids: Sequence[str], wanted: RecordFilter = EVERYTHING
    ) -> list[Subscription | None]:
        """The subscriptions with these ids, None for a missing one, and for one that does not match
        the filter."""
        if not subscription_ids:
            return []
        listed = ListSubscriptions(ids=subscription_ids, filter=wanted)
        found = await run(self._redis, listed)
        return [None if record is None else _decode(record) for record in found]

    async def page(
        self, limit: int, after: IndexPosition | None = None
    ) -> tuple[list[Subscription], IndexPosition | None]:
        """At most `limit` subscriptions in the order of creation, and the next position."""
        return await self.search(EVERYTHING, limit, after)

    async def ids(self, owner: str | None = None) -> list[str]:
        """The ids of all subscriptions, or of those that `owner` created."""
        if owner is None:
            return await all_ids(self._redis, keys.SUBSCRIPTIONS)
        return [one.id for one in await self._owned(owner)]

    async def search(
        self, wanted: RecordFilter, limit: int, after: IndexPosition | None = None
    ) -> tuple[list[Subscription], IndexPosition | None]:
        """Those among the next `limit` subscriptions that may match a filter, and the next
        position."""
        ids, position = await page_of_ids(self._redis, keys.SUBSCRIPTIONS, limit, after)
        found = await self.get_many(ids, wanted)
        return [subscription for subscription in found if subscription is not None], position

    async def _owned(self, owner: str, wanted: RecordFilter = EVERYTHING) -> list[Subscription]:
        """The subscriptions that `owner` created, in the order of creation."""
        found = await run(self._redis, FindOwned(owner=owner, filter=wanted))
        return [one for one in map(_decode, found) if one.owner == owner]

    async def newest(self, most: int | None) -> AsyncIterator[Subscription]:
        """The subscriptions, the newest first: `most` of them, or all."""
        async for ids in newest_ids(self._redis, keys.SUBSCRIPTIONS, most):
            for subscription in await self.get_many(ids):
                if subscription is not None:
                    yield subscription

    async def page_owned(
        self,
        owner: str,
        wanted: RecordFilter,
        limit: int,
        after: IndexPosition | None = None,
    ) -> tuple[list[Subscription], IndexPosition | None]:
        """A page of the subscriptions that `owner` created and that may match a filter. Every call
        reads all of them."""
        owned = [
            one
            for one in await self._owned(owner, wanted)
            if after is None or (one.created_at, one.id) > (after.created_at, after.id)
        ]
        if len(owned) <= limit:
            return owned, None
        return owned[:limit], IndexPosition(owned[limit - 1].created_at, owned[limit - 1].id)

    async def update(
        self,
        subscription_id: str,
        change: Callable[[Subscription], Subscription],
        headers: Mapping[str, str] | None = None,
        certificate: ClientCertificate | msgspec.UnsetType | None = msgspec.UNSET,
    ) -> Subscription:
        """Applies `change` to the stored record, and replaces the headers unless they are None, and
        the client certificate unless it is UNSET; None removes it.

        If the subscription is active after the edit and has pending events, its outbox is due at
        once; otherwise the outbox leaves the schedule and keeps queueing events. Raises
        NotFoundError.
        """

        async def attempt(_: bool) -> Subscription:
            record = await self._field(subscription_id, "record")
            after = change(_decode(record))
            encrypted = (
                None
                if headers is None
                else self._encrypted(subscription_id, "headers", dict(headers))
            )
            encrypted_certificate = (
                None
                if certificate is msgspec.UNSET
                else self._encrypted_certificate(subscription_id, certificate)
            )
            await self._store(
                after, record, headers=encrypted, client_certificate=encrypted_certificate
            )
            return after

        return await edit(f"another request is editing subscription {subscription_id}", attempt)

    async def rotate(
        self,
        subscription_id: str,
        change: Callable[
            [Subscription, list[SigningSecret]], tuple[Subscription, list[SigningSecret]]
        ],
    ) -> tuple[Subscription, list[SigningSecret]]:
        """Applies `change` to the subscription and its secrets. `change` must modify the
        subscription, because a concurrent rotation is detected by that.

        Raises NotFoundError, DecryptionError or the errors of `change`.
        """

        async def attempt(_: bool) -> tuple[Subscription, list[SigningSecret]]:
            record, encrypted = await read_fields(
                self._redis, keys.subscription(subscription_id), ("record", "secrets")
            )
            if record is None or encrypted is None:
                raise _not_found(subscription_id)
            after, secrets = change(
                _decode(record), self.decrypted_secrets(subscription_id, encrypted)
            )
            encrypted = self._encrypted(subscription_id, "secrets", secrets)
            await self._store(after, record, secrets=encrypted)
            return after, secrets

        return await edit(f"another request is editing subscription {subscription_id}", attempt)

    async def resume(self, subscription_id: str, now: int) -> Subscription:
        """Makes a subscription active, whatever stopped it, and makes all events on its outbox due
        now. Raises NotFoundError."""

        async def attempt(_: bool) -> Subscription:
            record = await self._field(subscription_id, "record")
            before = _decode(record)
            after = msgspec.structs.replace(
                before, paused=False, disabled_reason=None, updated_at=now
            )
            matcher = Matcher(*await self.all_for_matching(), now)
            resume = ResumeSubscription(
                subscription=keys.subscription(subscription_id),
                outbox_state=keys.outbox_state(subscription_id),
                lease=keys.lease("outboxes", subscription_id),
                live=keys.live_queue(subscription_id),
                replayed=keys.replayed_queue(subscription_id),
                replay_queue=keys.replay_queue(subscription_id),
                announced=await announced(Notices(matcher, _resumed(before)), self._counters),
                id=subscription_id,
                as_read=record,
                record=_encode(after),
                resumed=new_token(),
            )
            await run(self._redis, resume)
            return after

        return await edit(f"another request is editing subscription {subscription_id}", attempt)

    async def delete(
        self, subscription_id: str, check: Callable[[Subscription], None] | None = None
    ) -> None:
        """Deletes a subscription with its outbox unless `check` raises. Raises NotFoundError."""

        async def attempt(_: bool) -> None:
            record = None
            if check is not None:
                record = await self._field(subscription_id, "record")
                check(_decode(record))
            await self._delete(subscription_id, record)

        try:
            await edit(f"another request is editing subscription {subscription_id}", attempt)
        except RefusedError:
            raise _not_found(subscription_id) from None

    async def secrets(self, subscription_id: str) -> list[SigningSecret]:
        """The signing secrets, the newest first, including expired ones. Raises NotFoundError or
        DecryptionError."""
        return self.decrypted_secrets(
            subscription_id, await self._field(subscription_id, "secrets")
        )

    def decrypted_secrets(self, subscription_id: str, encrypted: bytes) -> list[SigningSecret]:
        """The signing secrets from an encrypted value. Raises DecryptionError."""
        return _decode_secrets(self._decrypt(subscription_id, "secrets", encrypted))

    def _decrypt(self, subscription_id: str, field: str, encrypted: bytes) -> bytes:
        """A value that each turn on an outbox needs. Raises DecryptionError."""
        small = len(encrypted) <= _DECRYPTED_BYTES
        decrypt = self._decrypted if small else self._encryptor.decrypt
        return decrypt(encrypted, owner_in_subscription(subscription_id, field))

    async def headers(self, subscription_id: str) -> dict[str, str]:
        """The headers to send with each push. Raises NotFoundError or DecryptionError."""
        return self.decrypted_headers(
            subscription_id, await self._field(subscription_id, "headers")
        )

    def decrypted_headers(self, subscription_id: str, encrypted: bytes) -> dict[str, str]:
        """The headers from an encrypted value. Raises DecryptionError."""
        return _decode_headers(self._decrypt(subscription_id, "headers", encrypted))

    async def certificate(self, subscription_id: str) -> ClientCertificate | None:
        """The client certificate to present to the receiver, if it has one. Raises
        DecryptionError."""
        encrypted = await read_field(
            self._redis, keys.subscription(subscription_id), "client_certificate"
        )
        return self.decrypted_certificate(subscription_id, encrypted or b"")

    def decrypted_certificate(
        self, subscription_id: str, encrypted: bytes
    ) -> ClientCertificate | None:
        """The client certificate from an encrypted value, None if that is empty. Raises
        DecryptionError."""
        if not encrypted:
            return None
        owner = owner_in_subscription(subscription_id, "client_certificate")
        return _decode_certificate(self._encryptor.decrypt(encrypted, owner))

    async def all_for_matching(self) -> tuple[int, list[Subscription], list[ApiKey]]:
        """Every subscription and every API key, and their common version."""
        found = await run(self._redis, ReadSubscriptions())
        return (
            found.version,
            [_decode(record) for record in found.subscriptions],
            [_decode_api_key(record) for record in found.api_keys],
        )

    async def _delete(self, subscription_id: str, as_read: bytes | None) -> None:
        delete = DeleteSubscription(
            subscription=keys.subscription(subscription_id),
            outbox=keys.outbox(subscription_id),
            outbox_state=keys.outbox_state(subscription_id),
            outbox_dead=keys.outbox_dead(subscription_id),
            replays=keys.replays(subscription_id),
            lease=keys.lease("outboxes", subscription_id),
            others=[key(subscription_id) for key in keys.OF_SUBSCRIPTION],
            id=subscription_id,
            as_read=as_read,
            replay_prefix=keys.replay(subscription_id, ""),
        )
        await run(self._redis, delete)

    async def _store(
        self,
        subscription: Subscription,
        as_read: bytes | None,
        *,
        secrets: bytes | None = None,
        headers: bytes | None = None,
        client_certificate: bytes | None = None,
        read_up_to: str | None = None,
        begins: int | None = None,
    ) -> None:
        write = WriteSubscription(
            subscription=keys.subscription(subscription.id),
            outbox=keys.outbox(subscription.id),
            outbox_state=keys.outbox_state(subscription.id),
            replayed=keys.replayed(subscription.id),
            replay_queue=keys.replay_queue(subscription.id),
            id=subscription.id,
            created_at=subscription.created_at,
            as_read=as_read,
            record=_encode(subscription),
            secrets=secrets,
            headers=headers,
            client_certificate=client_certificate,
            without_certificate=client_certificate == b"",
            state=state_of(subscription),
            read_up_to=read_up_to,
            begins=begins,
            most=self.most,
        )
        await run(self._redis, write)

    async def _field(self, subscription_id: str, name: str) -> bytes:
        value = await read_field(self._redis, keys.subscription(subscription_id), name)
        if value is None:
            raise _not_found(subscription_id)
        return value

    def _encrypted_certificate(
        self, subscription_id: str, certificate: ClientCertificate | None
    ) -> bytes:
        """Empty, which removes it, if there is none."""
        if certificate is None:
            return b""
        owner = owner_in_subscription(subscription_id, "client_certificate")
        return self._encryptor.encrypt(_encode(certificate), owner)

    def _encrypted(
        self, subscription_id: str, name: str, content: Sequence[SigningSecret] | Mapping[str, str]
    ) -> bytes:
        return self._encryptor.encrypt(
            _encode(content), owner_in_subscription(subscription_id, name)
        )


def _resumed(before: Subscription) -> list[Announcement]:
    """The announcements of a resume, for a parked outbox and for a disabled subscription."""
    ends = [(When.UNPARKED, "parked")]
    if before.disabled_reason is not None:
        ends.append((When.ENABLED, "disabled"))
    return [
        of_subscription(before, "subscription.recovered", {"was": was, "by": "resume"}, when)
        for when, was in ends
    ]


def _not_found(subscription_id: str) -> NotFoundError:
    return NotFoundError(f"there is no subscription {subscription_id}")
