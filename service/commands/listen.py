"""A subscriber for development: verifies every push it is sent and shows what it says."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import re
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TextIO

import msgspec
from aiohttp import web
from rich.console import Console
from rich.text import Text
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from service.domain.access.signing import (
    HMAC_PREFIX,
    PUBLIC_PREFIX,
    Signature,
    make_secret,
    pasted,
    read_public_key,
    read_secret,
)
from service.domain.access.verification import fault
from service.domain.hosts import in_url
from service.logs import wants_colour

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

_REMEMBERED: Final = 100_000
"""Ids that are remembered to tell duplicates; the oldest are forgotten first."""
_REPLAY_HEADER: Final = "coursewire-replay"
_STOP_SECONDS: Final = 2.0
"""How long requests under way may take to finish when the listener stops."""
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class EventData(msgspec.Struct, frozen=True, kw_only=True):
    """What the listener reads of `data`; operational events have none of it but their id."""

    event_id: str | None = None
    course_id: str | None = None
    integration_id: str | None = None
    sequence: int | None = None
    previous_sequence: int | None = None
    changed: tuple[str, ...] = ()
    reason: str | None = None
    evidence: str | None = None
    initial: bool = False
    detected_by: str | None = None
    course: dict[str, Any] | None = None

    @property
    def title(self) -> str | None:
        """The title of the course's first revision that has one."""
        revisions = (self.course or {}).get("revisions")
        for revision in revisions if isinstance(revisions, list) else ():
            title = revision.get("title") if isinstance(revision, dict) else None
            if isinstance(title, str) and title:
                return title
        return None


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A verified body, as far as the listener reads it. `timestamp` is the detection."""

    type: str
    timestamp: datetime
    data: EventData


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A verified body that is a CloudEvent."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    time: datetime
    data: EventData


class Push(msgspec.Struct, frozen=True, kw_only=True):
    """One POST as it came.

    `refusal` says why it was refused; `event` is there where it was not. `times` counts how
    often its id has been verified, this time included; `altered` says that an earlier one of
    the same id had other bytes, which no sender may do. `replay`: the sender says that it was asked
    to send this event again, so that it is no duplicate.
    """

    at: datetime
    id: str | None
    body: bytes
    event: Event | None = None
    refusal: str | None = None
    times: int = 1
    altered: bool = False
    replay: bool = False


_decode_event = msgspec.json.Decoder(Event).decode
_decode_cloud_event = msgspec.json.Decoder(CloudEvent).decode


def _read(content_type: str, body: bytes) -> Event:
    if not content_type.lower().startswith("application/cloudevents+json"):
        return _decode_event(body)
    one = _decode_cloud_event(body)
    return Event(type=one.type, timestamp=one.time, data=one.data)


Verifier = Callable[[Mapping[str, str], bytes], str | None]
"""Says why a push is not to be believed; None: it is."""


def _verifier(secret: str) -> Verifier:
    given = pasted(secret).text
    if given.startswith(PUBLIC_PREFIX):
        key = read_public_key(secret)
        return lambda headers, body: fault(key, headers, body, time.time())
    if HMAC_PREFIX not in given:
        raise ValueError(
            f"give a {HMAC_PREFIX!r} secret, or the {PUBLIC_PREFIX!r} key of an ed25519 one"
        )
    webhook = Webhook(read_secret(secret).secret)

    def verify(headers: Mapping[str, str], body: bytes) -> str | None:
        try:
            webhook.verify(body, dict(headers), json_parse=False)
        except WebhookVerificationError as error:
            return _sentence(error)
        except ValueError:
            # The library splits and decodes the signature header without looking.
            return "webhook-signature or the body is malformed"
        return None

    return verify


class Listener:
    """An HTTP receiver that verifies: `v1` with the official `standardwebhooks` library, `v1a`,
    which that library does not know, by itself.

    Every POST, to whatever path, is handed to `on_push` before it is answered: with `status`
    where it verified, with 400 and the reason where it did not. Port 0 takes a free one.

    Raises ValueError if `secret` is no usable `whsec_` secret or `whpk_` key; `start` raises
    OSError if the address cannot be bound.
    """

    def __init__(
        self,
        secret: str,
        on_push: Callable[[Push], None],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        status: int = 200,
    ) -> None:
        self._verify = _verifier(secret)
        self._on_push = on_push
        self._host = host
        self._port = port
        self._status = status
        self._seen: dict[str, tuple[int, bytes]] = {}
        application = web.Application()
        application.router.add_post("/{path:.*}", self._receive)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=_STOP_SECONDS
        )

    @property
    def url(self) -> str:
        """Where it listens; with port 0 known once it has started."""
        return f"http://{in_url(self._host)}:{self._port}/"

    async def start(self) -> None:
        """Accept pushes from now on."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            raise
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Answer what is under way and accept no more."""
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _receive(self, request: web.Request) -> web.Response:
        push = self._judge(request.headers, await request.read())
        self._on_push(push)
        if push.refusal is not None:
            return web.Response(status=400, text=f"{push.refusal}\n")
        return web.Response(status=self._status)

    def _judge(self, headers: CIMultiDictProxy[str] | Mapping[str, str], body: bytes) -> Push:
        at = datetime.now(UTC)
        webhook_id = headers.get("webhook-id")
        refusal = self._verify(headers, body)
        if refusal is not None:
            return Push(at=at, id=webhook_id, body=body, refusal=refusal)
        try:
            event = _read(headers.get("content-type", ""), body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            refusal = f"the signature is right, but the body is no event: {error}"
            return Push(at=at, id=webhook_id, body=body, refusal=refusal)
        times, altered = self._count(webhook_id or "", body)
        return Push(
            at=at,
            id=webhook_id,
            body=body,
            event=event,
            times=times,
            altered=altered,
            replay=headers.get(_REPLAY_HEADER) == "true",
        )

    def _count(self, webhook_id: str, body: bytes) -> tuple[int, bool]:
        digest = hashlib.sha256(body).digest()
        earlier, first = self._seen.get(webhook_id, (0, digest))
        self._seen[webhook_id] = (earlier + 1, first)
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return earlier + 1, first != digest


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].lower() + text[1:]


# --- what is shown -------------------------------------------------------------------------


class _Console(Console):
    """One whose reader may leave, as in `coursewire listen | head`."""

    def on_broken_pipe(self) -> None:
        try:
            super().on_broken_pipe()
        except SystemExit:
            # An end that says why, so that callers can tell it from others and clean up.
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None


def open_console(out: TextIO) -> Console:
    """A console on `out` that writes escape sequences only where colours are wanted.

    Printing raises BrokenPipeError, once, when nobody reads `out` any more.
    """
    return _Console(
        file=out,
        color_system="auto" if wants_colour(out) else None,
        highlight=False,
        markup=False,
        emoji=False,
    )


def printable(text: str) -> str:
    """`text` without characters that would move the cursor or reorder the line."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def fitted(text: str, width: int) -> str:
    """`text` made printable and cut to `width` columns, an ellipsis marking the cut."""
    cut = Text(printable(text))
    cut.truncate(width, overflow="ellipsis")
    return cut.plain


STYLES: Final = {
    "created": "bold green",
    "updated": "bold yellow",
    "deleted": "bold red",
}


def describe(push: Push, width: int | None) -> Text:
    """One line about a push, cut to `width` columns where given."""
    line = Text(no_wrap=True)
    line.append(f"{push.at.astimezone():%H:%M:%S} ", "dim")
    if push.event is None:
        line.append("refused ✗ ", "bold red")
        line.append(printable(push.refusal or ""))
        line.append(f"  {printable(push.id or 'without an id')}", "dim")
    else:
        _describe_event(line, push, push.event)
    if width is not None:
        line.truncate(width, overflow="ellipsis")
    return line


def _describe_event(line: Text, push: Push, event: Event) -> None:
    data = event.data
    kind = printable(event.type)
    line.append("✓ ", "green")
    line.append(f"{kind:<15} ", STYLES.get(kind.rpartition(".")[2], "bold"))
    if push.replay:
        line.append("replay  ", "blue")
    elif push.times > 1:
        line.append(f"duplicate, {push.times} times now  ", "magenta")
    if push.altered:
        line.append("WITH OTHER BYTES THAN BEFORE  ", "bold red")
    if data.sequence is not None:
        line.append(f"#{data.sequence} ", "dim")
    line.append(printable(data.title or data.course_id or data.event_id or ""))
    details = [*data.changed, *filter(None, (data.reason, data.evidence))]
    if details:
        line.append("  " + printable(", ".join(details)), "cyan")


def one_line(body: bytes) -> str:
    """A JSON body on one line, in which nothing acts on a terminal."""
    text = msgspec.json.format(body, indent=-1).decode()
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def new_secret() -> str:
    """A secret for a subscription that has none yet."""
    return make_secret(Signature.HMAC, secrets.token_bytes(32))


async def run(
    secret: str | None,
    *,
    host: str,
    port: int,
    status: int,
    as_json: bool,
    exit_after: int | None,
) -> None:
    """Listen and show what comes, until SIGINT or SIGTERM, or until `exit_after` different
    events have been verified. Without a `secret` one is made, and shown once the address is
    bound. Raises what Listener raises.

    With `as_json` standard output gets the verified bodies alone, one per line, and standard
    error all else.
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
