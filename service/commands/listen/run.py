"""`coursewire listen`: verifies every push it receives, and prints it."""

from __future__ import annotations

import asyncio
import signal
import sys

from service.commands.console import open_console
from service.commands.listen.printing import describe, one_line
from service.commands.listen.push import Push
from service.commands.listen.receiver import Listener, new_secret


async def run(
    secret: str | None,
    *,
    host: str,
    port: int,
    status: int,
    as_json: bool,
    exit_after: int | None,
) -> None:
    """Listen and print pushes until SIGINT or SIGTERM, or until `exit_after` different events have
    been verified.

    Without a `secret` one is generated, and printed once the address is bound. With `as_json`
    standard output gets only the verified bodies, one per line, and standard error all other lines.
    Raises the errors of Listener.
    """
    given = secret is not None
    secret = secret or new_secret()
    bodies = open_console(sys.stdout)
    lines = open_console(sys.stderr) if as_json else bodies
    width = lines.width if lines.is_terminal else None
    ended = asyncio.Event()
    verified = 0

    def show(push: Push) -> None:
        nonlocal verified
        try:
            if as_json and push.event is not None:
                bodies.out(one_line(push.body))
            else:
                lines.print(describe(push, width), soft_wrap=True)
        except BrokenPipeError:
            ended.set()
        if push.event is not None and push.times == 1:
            verified += 1
            if verified == exit_after:
                ended.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with Listener(secret, show, host=host, port=port, status=status) as listener:
        if not given:
            lines.print(f"no secret was given; subscribe with this one: {secret}", soft_wrap=True)
        lines.print(f"listening on {listener.url} and answering {status}", soft_wrap=True)
        await ended.wait()
