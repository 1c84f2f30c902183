"""An HTTP receiver that verifies every push."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec
from aiohttp import web
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from service.commands.listen.push import CloudEvent, Event, Push
from service.domain.hosts import in_url
from service.domain.signatures.signing import (
    HMAC_PREFIX,
    PUBLIC_PREFIX,
    Signature,
    make_secret,
    pasted,
    read_public_key,
    read_secret,
)
from service.domain.signatures.verification import fault

if TYPE_CHECKING:
    from multidict import CIMultiDictProxy

_REMEMBERED: Final = 100_000
"""Ids that are kept to detect duplicates; the oldest are removed first."""
_REPLAY_HEADER: Final = "coursewire-replay"
_STOP_SECONDS: Final = 2.0
"""Seconds for running requests to finish when the listener stops."""

_decode_event = msgspec.json.Decoder(Event).decode
_decode_cloud_event = msgspec.json.Decoder(CloudEvent).decode


def _read(content_type: str, body: bytes) -> Event:
    if not content_type.lower().startswith("application/cloudevents+json"):
        return _decode_event(body)
    one = _decode_cloud_event(body)
    return Event(type=one.type, timestamp=one.time, data=one.data)


Verifier = Callable[[Mapping[str, str], bytes], str | None]
"""Returns why a push is refused, None if it verifies."""


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
            # The library splits and decodes the signature header without checking it.
            return "webhook-signature or the body is malformed"
        return None

    return verify


class Listener:
    """An HTTP receiver that verifies pushes: `v1` with the official `standardwebhooks` library, and
    `v1a`, which that library does not support, by itself. Every POST, to any path, is passed to
    `on_push` before the response: `status` if it verified, otherwise 400 with the reason. Port 0
    selects a free one.

    Raises ValueError if `secret` is not a usable `whsec_` secret or `whpk_` key; `start` raises
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
        """Its address; with port 0 known once it has started."""
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
        """Answer running requests and accept no others."""
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
            refusal = f"the signature is valid, but the body is not an event: {error}"
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


def new_secret() -> str:
    """A secret for a subscription that has none yet."""
    return make_secret(Signature.HMAC, secrets.token_bytes(32))
