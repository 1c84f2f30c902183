"""Credentials: base URLs and their encrypted API keys."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.errors import CredentialInUseError, NotFoundError
from service.domain.events.operational import of_epoch
from service.domain.polling.integration import Credential, Integration
from service.ids import new_id
from service.storage.events.announcing import Announced, Notices, announced
from service.storage.redis import keys
from service.storage.redis.counters import Counters
from service.storage.redis.hashes import read_field, read_fields
from service.storage.redis.keys import EpochKeys, Key, ScheduleKeys
from service.storage.redis.optimistic_edit import edit
from service.storage.redis.paging import IndexPosition, all_ids, newest_ids, page_of_ids
from service.storage.redis.scripts import Script, run
from service.storage.redis.scripts.statuses import RefusedError
from service.storage.registry.integration_scripts import MadeCredential
from service.storage.registry.integrations import poll_id_of, upstream_identity
from service.storage.registry.matcher_cache import Matchers
from service.storage.security.encryption import Encryptor, marked_api_key, owner_of_api_key

if TYPE_CHECKING:
    from redis.asyncio import Redis

MOST_NAMED = 20  # integrations that the error of a deletion names

_decode = msgspec.json.Decoder(Credential).decode
_decode_integration = msgspec.json.Decoder(Integration).decode


class _User(msgspec.Struct, frozen=True, kw_only=True):
    """An integration that uses the credential, as read."""

    integration: Integration
    record: bytes
    epoch: str
    poll: bytes | None


class UserArgument(msgspec.Struct, frozen=True, kw_only=True):
    """The effect of an edit on an integration: the new epoch, if any, and whether the next poll is
    due now."""

    integration: Key
    kept: EpochKeys
    id: str
    as_read: bytes
    epoch: str
    next_epoch: str | None
    upstream_before: str
    upstream_after: str
    wakes: bool


class CreateCredential(Script[None]):
    """Stores a credential; `mark` is that of its key."""

    credential: Key
    credentials: Key = keys.CREDENTIALS
    by_values: Key = keys.CREDENTIALS_BY_VALUES
    id: str
    created_at: int
    record: bytes
    api_key: bytes
    mark: str
    base_url: str


class EditCredential(Script[None]):
    """Stores an edited credential, and its effects on the integrations that use it; `uses` is their
    number as read, None if they are not affected. Refuses with STALE, SUBSCRIPTIONS or EXISTS.
    Announces `epoch`."""

    credential: Key
    announced: Announced
    by_values: Key = keys.CREDENTIALS_BY_VALUES
    upstreams: Key = keys.UPSTREAMS
    schedule: ScheduleKeys = keys.schedule("polls")
    id: str
    as_read: bytes
    record: bytes
    api_key: bytes | None
    mark: str | None
    base_url: str
    uses: int | None
    users: Sequence[UserArgument]


class DeleteCredential(Script[int]):
    """Deletes a credential if no integration uses it; returns the number of those that do. Refuses
    with GONE, or with STALE unless `as_read` is None."""

    credential: Key
    credentials: Key = keys.CREDENTIALS
    by_values: Key = keys.CREDENTIALS_BY_VALUES
    id: str
    as_read: bytes | None


class CredentialStore:
    """Stores credentials."""

    def __init__(
        self, redis: Redis, encryptor: Encryptor, matchers: Matchers, counters: Counters
    ) -> None:
        self._redis = redis
        self._matchers = matchers
        self._counters = counters
        self._encryptor = encryptor

    async def create(self, credential: Credential, api_key: str) -> None:
        """Stores a new credential."""
        create = CreateCredential(
            credential=keys.credential(credential.id),
            created_at=credential.created_at,
            **msgspec.structs.asdict(self._made(credential, api_key)),
        )
        await run(self._redis, create)

    async def prepare(
        self, credential: Credential, api_key: str
    ) -> tuple[str, MadeCredential | None]:
        """The id of a credential with the same base URL and key; if there is none, that of
        `credential`, with its values to store."""
        marks = self._encryptor.marks(marked_api_key(api_key.encode()))
        found = cast(
            "list[bytes | None]",
            await self._redis.hmget(
                keys.CREDENTIALS_BY_VALUES,
                [f"{mark.hex()} {credential.base_url}" for mark in marks],
            ),
        )
        existing = next((one.decode() for one in found if one is not None), None)
        if existing is not None:
            return existing, None
        return credential.id, self._made(credential, api_key)

    async def get(self, credential_id: str) -> Credential:
        """One credential. Raises NotFoundError."""
        return _decode(await self._record(credential_id))

    async def get_many(self, credential_ids: Sequence[str]) -> list[Credential | None]:
        """The credentials with these ids, None for a missing one."""
        if not credential_ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for credential_id in credential_ids:
                pipeline.hget(keys.credential(credential_id), "record")
            found = await pipeline.execute()
        return [None if record is None else _decode(record) for record in found]

    async def page(
        self, limit: int, after: IndexPosition | None = None
    ) -> tuple[list[Credential], IndexPosition | None]:
        """At most `limit` credentials in the order of creation, and the next position."""
        ids, position = await page_of_ids(self._redis, keys.CREDENTIALS, limit, after)
        found = await self.get_many(ids)
        return [credential for credential in found if credential is not None], position

    async def newest(self, most: int | None) -> AsyncIterator[Credential]:
        """The credentials, the newest first: `most` of them, or all."""
        async for ids in newest_ids(self._redis, keys.CREDENTIALS, most):
            for credential in await self.get_many(ids):
                if credential is not None:
                    yield credential

    async def decrypt(self, credential_id: str) -> UpstreamCredential:
        """The credential with its key. Raises NotFoundError or DecryptionError."""
        record, encrypted = await read_fields(
            self._redis, keys.credential(credential_id), ["record", "api_key"]
        )
        if record is None or encrypted is None:
            raise NotFoundError(f"there is no credential {credential_id}")
        api_key = self._encryptor.decrypt(encrypted, owner_of_api_key(credential_id)).decode()
        return UpstreamCredential(base_url=_decode(record).base_url, api_key=api_key)

    async def update(
        self,
        credential_id: str,
        change: Callable[[Credential], Credential],
        api_key: str | None = None,
    ) -> Credential:
        """Applies `change` to the stored record, and replaces the key unless it is None.

        Another base URL starts a new epoch of every integration that uses the credential; another
        key makes their polls due at once. Raises NotFoundError, or IntegrationExistsError if one of
        them would duplicate another on the same upstream.
        """

        async def attempt(fresh: bool) -> Credential:
            record = await self._record(credential_id)
            before = _decode(record)
            after = change(before)
            moved = after.base_url != before.base_url
            concerned = moved or api_key is not None
            users = await self._users(credential_id) if concerned else []
            epochs = [new_id("ep") if moved else None for _ in users]
            announcements = [
                of_epoch(user.integration, begins, user.epoch, "upstream")
                for user, begins in zip(users, epochs, strict=True)
                if begins is not None
            ]
            notices = Notices(await self._matchers.current(fresh=fresh), announcements)
            edited = EditCredential(
                credential=keys.credential(credential_id),
                announced=await announced(notices, self._counters),
                id=credential_id,
                as_read=record,
                record=msgspec.json.encode(after),
                api_key=None if api_key is None else self._encrypt(credential_id, api_key),
                mark=None if api_key is None else self._mark(api_key),
                base_url=after.base_url,
                uses=len(users) if concerned else None,
                users=[
                    _argument(user, begins, before, after)
                    for user, begins in zip(users, epochs, strict=True)
                ],
            )
            await run(self._redis, edited)
            return after

        return await edit(f"another request is editing credential {credential_id}", attempt)

    async def delete(
        self, credential_id: str, check: Callable[[Credential], None] | None = None
    ) -> None:
        """Deletes a credential unless `check` raises. Raises NotFoundError, or
        CredentialInUseError."""

        async def attempt(_: bool) -> int:
            record = None
            if check is not None:
                record = await self._record(credential_id)
                check(_decode(record))
            delete = DeleteCredential(
                credential=keys.credential(credential_id), id=credential_id, as_read=record
            )
            return await run(self._redis, delete)

        try:
            uses = await edit(f"another request is editing credential {credential_id}", attempt)
        except RefusedError:
            raise NotFoundError(f"there is no credential {credential_id}") from None
        if uses > 0:
            users = await self._users(credential_id)
            raise CredentialInUseError(
                credential_id,
                uses,
                [(user.integration.id, user.integration.name) for user in users[:MOST_NAMED]],
            )

    async def _record(self, credential_id: str) -> bytes:
        record = await read_field(self._redis, keys.credential(credential_id), "record")
        if record is None:
            raise NotFoundError(f"there is no credential {credential_id}")
        return record

    async def _users(self, credential_id: str) -> list[_User]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for integration_id in await all_ids(self._redis, keys.INTEGRATIONS):
                pipeline.hmget(keys.integration(integration_id), ["record", "epoch", "poll"])
            found = await pipeline.execute()
        users = [
            _User(
                integration=_decode_integration(record),
                record=record,
                epoch=epoch.decode(),
                poll=poll,
            )
            for record, epoch, poll in found
            if record is not None
        ]
        return [user for user in users if user.integration.credential_id == credential_id]

    def _made(self, credential: Credential, api_key: str) -> MadeCredential:
        return MadeCredential(
            id=credential.id,
            record=msgspec.json.encode(credential),
            api_key=self._encrypt(credential.id, api_key),
            mark=self._mark(api_key),
            base_url=credential.base_url,
        )

    def _mark(self, api_key: str) -> str:
        return self._encryptor.mark(marked_api_key(api_key.encode())).hex()

    def _encrypt(self, credential_id: str, api_key: str) -> bytes:
        return self._encryptor.encrypt(api_key.encode(), owner_of_api_key(credential_id))


def _argument(
    user: _User, begins: str | None, before: Credential, after: Credential
) -> UserArgument:
    integration = user.integration
    return UserArgument(
        integration=keys.integration(integration.id),
        kept=keys.of_epoch(integration.id, user.epoch, poll_id_of(user.poll)),
        id=integration.id,
        as_read=user.record,
        epoch=user.epoch,
        next_epoch=begins,
        upstream_before=upstream_identity(before.base_url, integration.upstream_id),
        upstream_after=upstream_identity(after.base_url, integration.upstream_id),
        wakes=not integration.paused,
    )
