"""Pages of courses from the upstream, and the meaning of its errors."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from service.clients.bodies import describe, foreign_charset, printable, read_body, without_mark
from service.clients.exchange import ExchangeError
from service.clients.headers import http_date, retry_after, seconds
from service.domain.access.redaction import Redactor
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.courses.salvage import UNREADABLE, items, members, text_of
from service.domain.delivery.outcome import OutcomeClass
from service.domain.errors import (
    UpstreamAuthError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamInputError,
    UpstreamModelUnavailableError,
    UpstreamNotFoundError,
    UpstreamNotReadyError,
    UpstreamPageError,
    UpstreamProxyError,
    UpstreamRateLimitedError,
    UpstreamTargetRefusedError,
    UpstreamUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TIMEOUT_SECONDS = 60.0  # of one whole request
MAX_PAGE_BYTES = 64 * 1024 * 1024  # of one page, decompressed
MAX_ERROR_BYTES = 64 * 1024  # of an error's body; the rest is not read
MAX_PAGE_SIZE = 250  # the upstream's own limit
CODE_LENGTH = 100  # characters of the upstream's error code that are kept
MESSAGE_LENGTH = 300  # of its message
LOG_URL_LENGTH = 500  # of the address of its log
LOCATION_LENGTH = 200  # of a redirection's address
LONGEST_WINDOW_SECONDS = 86_400.0  # of a rate limit: a larger value is read as a date


class PageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The requested page. The filters must be the same for every cursor of a poll.

    `updated_after` is an ISO 8601 time in UTC with milliseconds and Z.
    """

    page_size: int = MAX_PAGE_SIZE
    cursor: str | None = None
    updated_after: str | None = None
    include_deleted: bool = False
    ids: tuple[str, ...] = ()
    remote_ids: tuple[str, ...] = ()

    def parameters(self) -> dict[str, str]:
        """The query as the upstream expects it: booleans as words, lists joined by commas."""
        parameters = {"page_size": str(self.page_size)}
        if self.cursor is not None:
            parameters["cursor"] = self.cursor
        if self.updated_after is not None:
            parameters["updated_after"] = self.updated_after
        if self.include_deleted:
            parameters["include_deleted"] = "true"
        if self.ids:
            parameters["ids"] = ",".join(self.ids)
        if self.remote_ids:
            parameters["remote_ids"] = ",".join(self.remote_ids)
        return parameters


class RateLimit(msgspec.Struct, frozen=True):
    """The reported rate limit: requests in all, remaining requests, seconds to its reset; None if
    the upstream reports none."""

    limit: int | None = None
    remaining: int | None = None
    reset_seconds: float | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One page. The records are undecoded; `next` is None on the last page.

    `date_ms` is the upstream's own clock (epoch ms) at the response, `age_ms` how long a cache has
    kept it since; `size` the page's decompressed bytes.
    """

    results: list[msgspec.Raw]
    next: str | None
    date_ms: int | None
    rate: RateLimit
    size: int
    age_ms: int = 0


class _PageData(msgspec.Struct, frozen=True, gc=False):
    results: list[msgspec.Raw]
    next: str | None


class _PageBody(msgspec.Struct, frozen=True, gc=False):
    status: Literal["success"]
    data: _PageData


class _ErrorDetail(msgspec.Struct, frozen=True):
    code: str | None = None
    title: str | None = None
    message: str | None = None
    log_url: str | None = None


class _ErrorBody(msgspec.Struct, frozen=True):
    error: _ErrorDetail


# The beginning of a page, broken or not: a response of another shape comes from another server.
_PAGE_BEGINS = re.compile(rb'\s*\{.{0,1000}"data"\s*:', re.DOTALL)
_INTEGER = re.compile(r"\s*([0-9]{1,10})(?![0-9])")

_page_decoder = msgspec.json.Decoder(_PageBody)
_error_decoder = msgspec.json.Decoder(_ErrorBody)

_BY_CODE: dict[str, type[UpstreamError]] = {
    "PLATFORM.RATE_LIMIT_EXCEEDED": UpstreamRateLimitedError,
    "REMOTE.RATE_LIMIT_EXCEEDED": UpstreamRateLimitedError,
    "PLATFORM.CONCURRENCY_LIMIT_EXCEEDED": UpstreamBusyError,
    "PLATFORM.TASK_TIMED_OUT": UpstreamUnavailableError,
    "REMOTE.SERVICE_UNAVAILABLE": UpstreamUnavailableError,
    "PLATFORM.UNKNOWN_ERROR": UpstreamUnavailableError,
    "PLATFORM.INPUT_INVALID": UpstreamInputError,
    "PLATFORM.AUTHENTICATION_INVALID": UpstreamAuthError,
    "PLATFORM.IP_NOT_WHITELISTED": UpstreamAuthError,
    "PLATFORM.INTEGRATION_NOT_FOUND": UpstreamNotFoundError,
    "INTEGRATION.SETUP_INCOMPLETE": UpstreamNotReadyError,
    "INTEGRATION.SETUP_SYNC_PENDING": UpstreamNotReadyError,
    "INTEGRATION.QA_FAILED": UpstreamNotReadyError,
    "INTEGRATION.MODEL_NOT_AVAILABLE": UpstreamModelUnavailableError,
}
KNOWN_CODES = frozenset(_BY_CODE)
_BY_STATUS: dict[int, type[UpstreamError]] = {
    400: UpstreamInputError,
    401: UpstreamAuthError,
    403: UpstreamAuthError,
    404: UpstreamNotFoundError,
    408: UpstreamUnavailableError,
    409: UpstreamNotReadyError,
    422: UpstreamInputError,
    425: UpstreamUnavailableError,
    429: UpstreamRateLimitedError,
}


class UpstreamClient:
    """Requests pages from the upstream over the shared client.

    `timeout` bounds each whole request, in seconds; `max_bytes` bounds a decompressed page; `clock`
    returns epoch seconds, for an upstream that sends no date.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        timeout: float = TIMEOUT_SECONDS,
        max_bytes: int = MAX_PAGE_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self.timeout = timeout
        self.max_bytes = max_bytes
        self._clock = clock

    async def fetch_page(
        self, credential: UpstreamCredential, upstream_id: str, query: PageQuery
    ) -> Page:
        """One page of the integration's courses.

        Raises the `UpstreamError` for the response, or for its absence, and
        `UpstreamTargetRefusedError` if the address guard refuses the base URL.
        """
        try:
            request = self._request(credential, upstream_id, query)
        except ValueError:  # the message quotes the value
            raise UpstreamAuthError(
                "the API key or the integration id contains characters unfit for HTTP headers"
            ) from None
        try:
            async with asyncio.timeout(self.timeout):
                return await self._exchange(request, credential.api_key)
        except TimeoutError as exc:
            raise UpstreamUnavailableError(
                f"the upstream did not answer within {self.timeout:g} s"
            ) from exc
        except ExchangeError as exc:
            if exc.kind is OutcomeClass.REFUSED_TARGET:
                raise UpstreamTargetRefusedError(str(exc)) from exc
            if exc.kind is OutcomeClass.PROXY and not exc.shortage:
                raise UpstreamProxyError(f"the upstream could not be read: {exc}") from exc
            raise UpstreamUnavailableError(f"the upstream could not be read: {exc}") from exc

    def _request(
        self, credential: UpstreamCredential, upstream_id: str, query: PageQuery
    ) -> httpx.Request:
        headers = {
            "Authorization": f"Bearer {credential.api_key}",
            "X-Integration-Id": upstream_id,
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
            "Cache-Control": "no-cache",
        }
        if not all(value.isprintable() for value in headers.values()):
            raise ValueError("control characters in a header")
        return self._client.build_request(
            "GET",
            f"{credential.base_url.rstrip('/')}/lms/courses",
            params=query.parameters(),
            headers=headers,
        )

    async def _exchange(self, request: httpx.Request, api_key: str) -> Page:
        try:
            response = await self._client.send(request, stream=True)
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
        ):  # the error quotes the redirection's target
            raise UpstreamPageError(
                "the upstream redirects to an address that cannot be read", elsewhere=True
            ) from None
        try:
            if response.status_code == HTTPStatus.OK:
                body = await _read_page(response, self.max_bytes)
            else:
                body = await _read_error(response)
        finally:
            await response.aclose()
        if response.status_code != HTTPStatus.OK:
            raise self.error_of(response, body, api_key)
        return self.page_of(response, body, api_key)

    def page_of(self, response: httpx.Response, body: bytes, api_key: str) -> Page:
        """The page that a success brings. Raises the `UpstreamError` that it is otherwise."""
        try:
            data = _page_decoder.decode(body).data
        except UNREADABLE as exc:
            found = _salvaged(body)
            if found is None:
                raise self._no_page(response, body, api_key, exc) from exc
            data = found
        if data.next == "":
            raise UpstreamPageError("the upstream's next cursor is empty")
        date = http_date(response.headers.get("date"))
        return Page(
            results=data.results,
            next=data.next,
            date_ms=None if date is None else int(date * 1000),
            rate=_rate(response),
            size=len(body),
            age_ms=_age_ms(response),
        )

    def _no_page(
        self, response: httpx.Response, body: bytes, api_key: str, reason: Exception
    ) -> UpstreamError:
        """The error for a success that is not a page: an error after all, a page that is broken
        beyond its records, or the response of another server."""
        detail = _decode_error(body)
        if detail.code is not None or detail.message is not None or detail.title is not None:
            return self.error_of(response, body, api_key)
        status = response.status_code
        charset = foreign_charset(body)
        if charset is not None:
            message = f"the upstream's response is {charset}, but JSON must be UTF-8"
            return UpstreamPageError(message, status=status)
        if _PAGE_BEGINS.match(body) and b'"status"' in body:
            message = f"the upstream's page cannot be read: {reason}"
            return UpstreamPageError(message, status=status)
        seen = describe(response, body, Redactor([api_key]))
        return UpstreamPageError(
            f"the upstream's response is not a page of courses: {seen}",
            status=status,
            elsewhere=True,
        )

    def error_of(self, response: httpx.Response, body: bytes, api_key: str) -> UpstreamError:
        """The error that a response reports: its code decides, then its status."""
        detail = _decode_error(body)
        status = response.status_code
        kind = _BY_CODE.get(detail.code or "") or _kind_by_status(status)
        wait = retry_after(response.headers.get("retry-after"), *self._clocks(response))
        if wait is None and kind is UpstreamRateLimitedError:
            wait = _rate(response).reset_seconds

        redactor = Redactor([api_key])

        def kept(text: str, length: int) -> str:
            return redactor.text(printable(text, MAX_ERROR_BYTES))[:length]

        code = kept(detail.code or "", CODE_LENGTH) or None
        said = detail.message or detail.title
        if said is not None:
            said = kept(said, MESSAGE_LENGTH)
        elif 300 <= status < 400:
            said = _redirection(response, redactor)
        elif code is None:
            said = describe(response, body, redactor)
        return kind(
            f"the upstream answers {status} {code or 'without a code'}: {said or 'no explanation'}",
            code=code,
            status=status,
            retry_after=wait,
            log_url=kept(detail.log_url or "", LOG_URL_LENGTH) or None,
            elsewhere=detail == _ErrorDetail(),
        )

    def _clocks(self, response: httpx.Response) -> list[float]:
        """The time at which a response was sent, in epoch seconds: by our clock, and by the
        upstream's if the response has a date."""
        date = http_date(response.headers.get("date"))
        known = [] if date is None else [date + _age_ms(response) / 1000]
        return [self._clock(), *known]


def _kind_by_status(status: int) -> type[UpstreamError]:
    if kind := _BY_STATUS.get(status):
        return kind
    if status >= 500:
        return UpstreamUnavailableError
    return UpstreamInputError if status >= 400 else UpstreamPageError


def _salvaged(body: bytes) -> _PageData | None:
    """A page whose faults are only in some of its records, or in unused members; None for other
    faults.

    The records may be anything, and each is decoded by itself.
    """
    envelope = members(body.rstrip(b"\0")) or {}
    if text_of(envelope.get("status")) != "success":
        return None
    data = members(envelope.get("data") or b"") or {}
    records = items(data.get("results") or b"")
    following = data.get("next")
    if records is None or following is None:
        return None
    cursor = text_of(following)
    if cursor is None and following != b"null":
        return None
    return _PageData([msgspec.Raw(record) for record in records], cursor)


def _decode_error(body: bytes) -> _ErrorDetail:
    """The error in a body; empty if the body is HTML or plain text."""
    try:
        return _error_decoder.decode(body).error
    except UNREADABLE:
        envelope = members(body.rstrip(b"\0")) or {}
        said = members(envelope.get("error") or b"") or {}
        return _ErrorDetail(
            **{name: text_of(said.get(name)) for name in _ErrorDetail.__struct_fields__}
        )


def _redirection(response: httpx.Response, redactor: Redactor) -> str:
    """The target of a redirection, without possible secrets."""
    try:
        to = urlsplit(response.headers.get("location", "").strip())
        host = to.netloc.rpartition("@")[2]
        target = urlunsplit((to.scheme, host, to.path, "", ""))
    except ValueError:
        target = ""
    if not target:
        return "it redirects without a usable Location header"
    return f"it redirects to {redactor.text(printable(target, LOCATION_LENGTH))}"


def _age_ms(response: httpx.Response) -> int:
    """How long a cache has kept a response, 0 if it did not come from one."""
    return int((seconds(response.headers.get("age")) or 0) * 1000)


def _rate(response: httpx.Response) -> RateLimit:
    headers = response.headers
    reset = seconds(headers.get("ratelimit-reset"))
    return RateLimit(
        limit=_integer(headers.get("ratelimit-limit")),
        remaining=_integer(headers.get("ratelimit-remaining")),
        reset_seconds=None if reset is not None and reset > LONGEST_WINDOW_SECONDS else reset,
    )


def _integer(value: str | None) -> int | None:
    """The integer at the start of a field; parameters may follow it."""
    match = _INTEGER.match(value or "")
    return int(match[1]) if match else None


async def _read_page(response: httpx.Response, limit: int) -> bytes:
    """The body of a success. Raises `UpstreamPageError`."""
    parts: list[bytes] = []
    await read_body(response, limit, parts)
    return without_mark(b"".join(parts))


async def _read_error(response: httpx.Response) -> bytes:
    """An error's body, or its readable part: the status is then enough."""
    parts: list[bytes] = []
    with suppress(ExchangeError, UpstreamPageError):
        await read_body(response, MAX_ERROR_BYTES, parts)
    return without_mark(b"".join(parts))
