"""One POST to a subscriber with one time limit, and its outcome."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from service.clients.exchange import ExchangeError, Stage, Timeline
from service.clients.headers import retry_after
from service.clients.posting import BODY_LIMIT, Answer
from service.domain.access.redaction import Redactor
from service.domain.delivery.outcome import Outcome, OutcomeClass
from service.domain.egress.routes import PROXY_SETTING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from service.clients.transport import OutboundClient
    from service.domain.egress.certificates import ClientCertificate

EXCERPT_LENGTH = 1024  # bytes of a response that are kept

_NO_SECRETS = Redactor()
_TLS = OutcomeClass.TLS


class Receiver:
    """Posts to subscribers' URLs over the shared client. `clock` returns epoch seconds, with which
    a `Retry-After` date is compared."""

    def __init__(self, client: OutboundClient, *, clock: Callable[[], float] = time.time) -> None:
        self._poster = client.poster
        self._clock = clock

    async def post(
        self,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        timeout: float,  # noqa: ASYNC109 - it becomes an outcome, not a TimeoutError
        redactor: Redactor = _NO_SECRETS,
        certificate: ClientCertificate | None = None,
    ) -> Outcome:
        """Make one attempt of at most `timeout` seconds, from connecting to the end of the
        response.

        `redactor` removes secrets that the response may repeat; `certificate` is presented in the
        handshake. Every fault of the receiver is an outcome; only cancellation raises. A response
        other than 2xx counts by its status, even if its body never ends.
        """
        timeline = Timeline()
        answer = Answer(min(BODY_LIMIT, EXCERPT_LENGTH + redactor.reach))
        failure: tuple[OutcomeClass, str] | None = None
        shortage = False
        try:
            async with asyncio.timeout(timeout):
                await self._poster.post(url, headers, body, timeline, answer, certificate)
        except TimeoutError:
            reaching = timeline.stage is Stage.REACHING_PROXY
            kind = OutcomeClass.PROXY if reaching else OutcomeClass.TIMEOUT
            failure = (kind, f"{_awaited(timeline, answer)} within {timeout:g} s")
            shortage = timeline.waits_for is not None
        except ExchangeError as exc:
            failure = (exc.kind, str(exc) + self._expired(exc, certificate))
            shortage = exc.shortage
        except ValueError:
            # HTTP cannot carry the headers or the URL: the subscription's fault, and not a reason
            # to stop its outbox. The exception quotes the value, which may be a secret.
            failure = (OutcomeClass.PROTOCOL, "the request cannot be written as HTTP")
        return self._outcome(timeline, answer, failure, redactor, shortage=shortage)

    def _expired(self, exc: ExchangeError, certificate: ClientCertificate | None) -> str:
        """An addition to the error if the client certificate may have caused it."""
        ended = certificate is not None and certificate.not_after <= self._clock() * 1000
        return "; the client certificate has expired" if ended and exc.kind is _TLS else ""

    def _outcome(
        self,
        timeline: Timeline,
        answer: Answer,
        failure: tuple[OutcomeClass, str] | None,
        redactor: Redactor,
        *,
        shortage: bool,
    ) -> Outcome:
        kind, error = failure or (OutcomeClass.DELIVERED, None)
        if answer.status is not None and not 200 <= answer.status <= 299:
            kind, shortage = OutcomeClass.STATUS, False
            error = error or answer.flaw
            error = f"HTTP {answer.status}; {error}" if error else f"HTTP {answer.status}"
        connect_ms = timeline.milliseconds(timeline.connected_at)
        return Outcome(
            kind=kind,
            duration_ms=timeline.milliseconds(time.perf_counter()),
            status=answer.status,
            dns_ms=timeline.milliseconds(timeline.resolved_at),
            connect_ms=0 if timeline.reused and connect_ms is not None else connect_ms,
            first_byte_ms=timeline.milliseconds(timeline.answered_at),
            retry_after=retry_after(answer.retry_after, self._clock()),
            excerpt=redactor.excerpt(answer.excerpt, EXCERPT_LENGTH),
            error=error and redactor.text(error),
            shortage=shortage,
        )


def _awaited(timeline: Timeline, answer: Answer) -> str:
    """The stage that the timeout interrupted."""
    if timeline.waits_for is not None:
        return f"no {timeline.waits_for} was free"
    if timeline.stage is Stage.REACHING_PROXY:
        return f"no connection to the proxy of {PROXY_SETTING}"
    if timeline.stage is Stage.PROXY_CONNECTS:
        return f"the proxy of {PROXY_SETTING} had not connected to this host"
    if timeline.connected_at is None:
        return "no connection"
    return "no response" if answer.status is None else "the response did not end"
