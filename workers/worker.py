"""The worker process: polls integrations and delivers events, as jobs of RQ."""

from __future__ import annotations

import asyncio
import os
import resource
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import click
from redis.exceptions import RedisError

from service.bootstrap import open_services
from service.domain.errors import CoursewireError
from service.garbage_collection import IN_WORKER, collect_less
from service.logs import configure
from service.settings import Settings
from service.storage.redis.client import open_sync
from service.storage.redis.server_info import check_server
from workers.context import JobContext
from workers.dispatch import queues
from workers.dispatch.dispatcher import Dispatcher
from workers.rq.serving import DRAIN_SECONDS, Line, leave, serve

MAX_FILES: Final = 16_384  # open files that the process requests


def _seconds(_context: click.Context, _option: click.Parameter, seconds: float) -> float:
    if not 0 <= seconds < threading.TIMEOUT_MAX:
        raise click.BadParameter(f"{seconds} is not a number of seconds")
    return seconds


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--poll-slots",
    type=click.IntRange(min=1),
    default=4,
    show_default=True,
    help="The number of poll jobs that run at the same time.",
)
@click.option(
    "--deliver-slots",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="The number of delivery jobs that run at the same time.",
)
@click.option(
    "--drain-seconds",
    type=float,
    callback=_seconds,
    default=DRAIN_SECONDS,
    show_default=True,
    help="Seconds for running jobs to end after a signal.",
)
def main(*, poll_slots: int, deliver_slots: int, drain_seconds: float) -> None:
    """Poll integrations and deliver events until stopped."""
    lines = [
        Line(queues.POLL, poll_slots),
        Line(queues.DELIVER, deliver_slots),
        Line(queues.MAINTAIN, 1),
    ]
    try:
        code = _run(Settings.from_env(os.environ), lines, drain_seconds)
    except CoursewireError as error:
        click.echo(f"coursewire: {error}", err=True)
        code = 2
    leave(code)


def _run(settings: Settings, lines: Sequence[Line], drain_seconds: float) -> int:
    configure(settings.log_format, settings.log_level, "worker")
    settings.require("REDIS_URL", "ENCRYPTION_KEYS")
    redis_url = settings.require_redis_url()
    _allow_files()
    asyncio.run(check_server(redis_url))

    @asynccontextmanager
    async def open_context(draining: asyncio.Event) -> AsyncIterator[JobContext]:
        async with open_services(settings, part="worker") as services:
            with open_sync(redis_url) as connection:
                dispatcher = Dispatcher(services.schedule, connection)
                if settings.instance is not None:
                    with suppress(RedisError):  # then the leases expire
                        await dispatcher.take_over(services.leases)
                collect_less(IN_WORKER)
                yield JobContext(services, dispatcher, draining)

    return serve(open_context, redis_url, lines, drain_seconds=drain_seconds)


def _allow_files() -> None:
    """Raises the limit of open files, because each receiver that never answers holds
    connections."""
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_FILES if most == resource.RLIM_INFINITY else min(MAX_FILES, most)
    if files != resource.RLIM_INFINITY and files < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


if __name__ == "__main__":
    main(prog_name="coursewire worker")
