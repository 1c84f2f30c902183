"""Makes a backup of a running or stopped service, and restores one into a stopped service."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from redis.exceptions import RedisError

from service.api.http.version import version
from service.clock import now_ms
from service.commands.backup.archive import Archive, BackupError, Manifest, write_archive
from service.domain.errors import SettingsError, StorageUnavailableError
from service.domain.events.event import rfc3339
from service.local import embedded_valkey as embedded
from service.local.data_directory import completed_by_up
from service.local.supervisor.supervisor import Supervisor
from service.redis_url import read_redis_url
from service.settings import PREFIX, Settings
from service.storage.backup import contents
from service.storage.backup.snapshot import fetch_snapshot
from service.storage.redis import keys
from service.storage.redis.client import open_async
from service.storage.redis.rights import Rights
from service.storage.security.encrypted_values import KINDS, EncryptedValues
from service.storage.security.encryption import Encryptor
from service.storage.security.key_holders import Processes

Result = TypeVar("Result")


def backup(settings: Settings, path: Path) -> str:
    """Write a backup to `path`, whole or not at all; return the message to print. Raises
    CoursewireError."""
    settings = completed_by_up(settings)
    if settings.redis_url is None and not embedded.has_data(settings.data_dir.expanduser()):
        raise SettingsError(
            f"{PREFIX}REDIS_URL is not set, and {settings.data_dir} holds no data of "
            "`coursewire up`: set one of them to the service to back up"
        )
    manifest, count = _run(_backup(settings, path.absolute()), path)
    needed = ", ".join(manifest.encryption_keys)
    return (
        f"{path}: {count} keys as of {manifest.made_at}, {path.stat().st_size / 1e6:.1f} MB. "
        + (
            f"Its secrets need the encryption keys {needed}: keep them too, elsewhere"
            if needed
            else "It holds no secrets"
        )
    )


def restore(settings: Settings, path: Path, *, replace: bool) -> str:
    """Write a backup into the Redis of a stopped service, or the embedded Valkey; return the
    message to print. Raises CoursewireError."""
    outside = settings.redis_url is not None
    settings = completed_by_up(settings)
    if not settings.encryption_keys:
        raise SettingsError(
            f"{PREFIX}ENCRYPTION_KEYS is not set, and there is no file encryption-keys in "
            f"{settings.data_dir}: give the keys that the backup was made with, because newly "
            "generated keys cannot decrypt it"
        )
    if not outside:  # addresses that a killed `up` left behind lead nowhere
        settings = msgspec.structs.replace(settings, redis_url=None)
    manifest, count = _run(_restore(settings, path, replace=replace), path)
    held = Encryptor(settings.encryption_keys).key_names
    lacking = [name for name in manifest.encryption_keys if name not in held]
    return f"restored {count} keys as of {manifest.made_at}. " + (
        f"{PREFIX}ENCRYPTION_KEYS lacks {', '.join(lacking)}, which secrets in it need: add them "
        "before anything starts"
        if lacking
        else "Start the service, then run `coursewire doctor`"
    )


def _run(work: Coroutine[Any, Any, Result], path: Path) -> Result:
    try:
        return asyncio.run(work)
    except RedisError as error:
        raise StorageUnavailableError(f"Redis cannot be used: {error}") from error
    except OSError as error:
        raise BackupError(
            f"{error.filename or path} cannot be used: {error.strerror or error}"
        ) from error


async def _backup(settings: Settings, path: Path) -> tuple[Manifest, int]:
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as name:
        draft, directory = Path(name) / "draft", Path(name)
        made_at = rfc3339(now_ms())
        async with _serving(settings) as url:
            await asyncio.to_thread(fetch_snapshot, url, embedded.prepare_snapshot(directory))
        # An own server loads the snapshot: this proves that it is valid, and leaves out foreign
        # keys.
        read_by = Settings(
            data_dir=directory, port=0, admin_token="-" * 16, encryption_keys=(bytes(32),)
        )
        async with _serving(read_by) as own:
            redis = open_async(f"{own.rpartition('/')[0]}/{read_redis_url(url).db}")
            try:
                manifest = Manifest(
                    made_at=made_at, version=version(), encryption_keys=await _key_names(redis)
                )
                async with aclosing(contents.read(redis)) as parts:
                    count = await write_archive(draft, manifest, parts)
            finally:
                await redis.aclose()
        draft.replace(path)
    return manifest, count


async def _restore(settings: Settings, path: Path, *, replace: bool) -> tuple[Manifest, int]:
    archive = await asyncio.to_thread(Archive, path)
    async with _serving(settings) as url:
        redis = open_async(url)
        try:
            await Rights(redis).check()
            # For the embedded Valkey the lock of the data directory shows this.
            if settings.redis_url is not None and (alive := await Processes(redis).alive()):
                raise BackupError(
                    f"{', '.join(one.name for one in alive)} are running: stop every part first. "
                    "The record of a killed part expires after 45 s"
                )
            if await contents.is_there(redis):
                if not replace:
                    raise BackupError(
                        f"{read_redis_url(url).shown} holds an installation already; --replace "
                        "deletes it and restores this backup in its place"
                    )
                await contents.remove(redis)
            await redis.set(keys.RESTORING, "")
            seconds, _ = await redis.time()
            count = await contents.write(redis, archive.parts(), int(seconds) * 1000)
            await redis.delete(keys.RESTORING)
        finally:
            await redis.aclose()
    return archive.manifest, count


@asynccontextmanager
async def _serving(settings: Settings) -> AsyncIterator[str]:
    """The address of the Redis in the settings, or of the embedded Valkey, started for the
    while."""
    if settings.redis_url is not None:
        yield settings.redis_url
        return
    alone = msgspec.structs.replace(settings, port=0)
    async with Supervisor(alone, (), sink=lambda *_: None) as supervisor:
        yield supervisor.settings.require_redis_url()


async def _key_names(redis: Any) -> tuple[str, ...]:
    """The names of the keys that encrypted the stored secrets."""
    values = EncryptedValues(redis, Encryptor((bytes(32),)))
    return tuple(
        sorted(
            {
                one.key_name
                for kind in KINDS
                async for page in values.pages(kind)
                for one in page
                if one.key_name is not None
            }
        )
    )
