"""The scheduler process: at least every second, claims due work and enqueues it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from contextlib import suppress

import click
from redis.exceptions import OutOfMemoryError, RedisError

from service.bootstrap import open_services
from service.domain.errors import CoursewireError
from service.logs import configure, get_logger
from service.settings import Settings
from service.storage.observability.history import History
from service.storage.redis.client import open_sync
from service.storage.redis.server_info import check_server
from service.storage.upkeep.retention import Retention
from workers import upkeep
from workers.dispatch import queues
from workers.dispatch.dispatcher import Dispatcher

TURN_SECONDS = 1.0
# the same for a while after a turn with claims: a full queue may have limited them, and workers
# empty it in less than a second
BUSY_TURN_SECONDS = 0.1
MAX_WAIT_SECONDS = 15.0  # between turns, or samples, while Redis is unavailable

_log = get_logger("scheduler")


async def run(settings: Settings) -> None:
    """Takes turns until SIGTERM or SIGINT. Any number of schedulers may run at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    name = f"{socket.gethostname()}-{os.getpid()}"
    async with open_services(settings, part="scheduler") as services:
        connection = open_sync(settings.redis_url or "")
        dispatcher = Dispatcher(services.schedule, connection)
        _log.info("scheduler started", name=name)
        failures = 0
        busy_until = 0.0
        sampling = asyncio.create_task(sample_history(services.history, stop))
        maintained = time.monotonic() - upkeep.INTERVAL_SECONDS
        while not stop.is_set():
            try:
                if time.monotonic() - maintained >= upkeep.INTERVAL_SECONDS:
                    await asyncio.to_thread(queues.enqueue_maintenance, connection)
                    maintained = time.monotonic()
                claimed = await dispatcher.dispatch("polls", "outboxes", scheduler=name)
                failures = 0
            except RedisError as error:
                failures += 1
                claimed = 0
                _log.warning("Redis is unavailable", error=str(error), failures=failures)
                if isinstance(error, OutOfMemoryError):
                    await _make_room(services.retention, settings)
            now = time.monotonic()
            if claimed:
                busy_until = now + TURN_SECONDS
                continue
            try:
                await asyncio.wait_for(stop.wait(), pause(failures, busy=now < busy_until))
            except TimeoutError:
                continue
        await sampling
        connection.close()
    _log.info("scheduler stopped", name=name)


async def sample_history(history: History, stop: asyncio.Event) -> None:
    """Samples the metrics at the end of each minute, until `stop` is set."""
    while not stop.is_set():
        try:
            wait = await history.sample()
        except RedisError as error:
            _log.warning("metrics not sampled", error=str(error))
            wait = MAX_WAIT_SECONDS
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), wait)


async def _make_room(retention: Retention, settings: Settings) -> None:
    """Trims here if no job can be enqueued, because the trimming job cannot be either."""
    try:
        _log.info("trimmed", **await upkeep.trim(retention, settings))
    except RedisError as error:
        _log.warning("trimming failed", error=str(error))


def pause(failures: int, *, busy: bool) -> float:
    """Seconds until the next turn after one without claims, or after consecutive failures."""
    if failures:
        return float(min(TURN_SECONDS * 2 ** (failures - 1), MAX_WAIT_SECONDS))
    return BUSY_TURN_SECONDS if busy else TURN_SECONDS


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Every second, enqueue the polls and deliveries that are due."""
    try:
        settings = Settings.from_env(os.environ)
        configure(settings.log_format, settings.log_level, "scheduler")
        # It decrypts no secret, but the services that it opens need the keys.
        settings.require("REDIS_URL", "ENCRYPTION_KEYS")
        asyncio.run(check_server(settings.require_redis_url()))
        asyncio.run(run(settings))
    except CoursewireError as error:
        click.echo(f"coursewire: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main(prog_name="coursewire scheduler")
