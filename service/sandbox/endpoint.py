"""The answer to one request for courses, decided from the request, the faults and the state."""

from __future__ import annotations

import hmac
import itertools
from collections import deque
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from service.sandbox.answers import (
    HTML_BODY,
    date_header,
    error_body,
    page_body,
    page_with_object,
    rate_headers,
    record_id,
    status_of,
    with_wrong_type,
)
from service.sandbox.catalogue import Catalogue
from service.sandbox.content import format_time
from service.sandbox.faults import (
    AnyFault,
    EmptyFault,
    EndEarlyFault,
    EndlessFault,
    ErrorFault,
    FaultBoard,
    HtmlFault,
    RepeatCursorFault,
    ShiftFault,
    Target,
    VanishFault,
    WrongTypesFault,
)
from service.sandbox.query import (
    Cursors,
    InvalidInputError,
    PagePosition,
    parse_query,
    read_parameters,
)
from service.sandbox.rate import Allowance, Budget
from service.sandbox.travel import Answer, travelling

SERVED_LENGTH: Final = 20_000
"""Requests in the log of requests."""

JSON: Final = "application/json; charset=utf-8"


class Incoming(msgspec.Struct, frozen=True):
    """The relevant parts of a request. Names of headers are in lower case."""

    method: str
    query_string: str
    headers: Mapping[str, str]


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A record of one request and its response. The log and tests read it.

    `ids` is the number of requested ids and remote ids, if any; `more` is whether the response
    named a next page.
    """

    n: int
    at: str
    upstream_id: str | None
    parameters: dict[str, str]
    status: int
    code: str | None
    records: int
    ids: int | None
    more: bool
    faults: tuple[str, ...]


class _RefusedError(Exception):
    def __init__(self, code: str | None, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status or status_of(code)


class _BypassedError(Exception):
    """A system before the API answers, without the API's errors and headers."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class _Page(msgspec.Struct, frozen=True):
    body: bytes
    records: int
    more: bool


_NO_PAGE: Final = _Page(b"", 0, more=False)


class Endpoint:
    """`GET /lms/courses` for one API key and any number of integrations."""

    def __init__(self, *, api_key: str, rate_limit_per_minute: int, seed: int) -> None:
        self.catalogues: dict[str, Catalogue] = {}
        self.faults = FaultBoard(seed)
        self._api_key = api_key
        self._rate_limit_per_minute = rate_limit_per_minute
        self._budget = Budget(rate_limit_per_minute)
        # Requests without the right key share one budget, because arbitrary keys are unlimited in
        # number.
        self._strangers = Budget(rate_limit_per_minute)
        # From the seed, so that cursors survive a restart.
        self._cursors = Cursors(f"cursors of seed {seed}".encode())
        self._numbers = itertools.count(1)
        self._served: deque[Served] = deque(maxlen=SERVED_LENGTH)

    @property
    def rate_limit_per_minute(self) -> int:
        """The number of requests accepted in a minute."""
        return self._rate_limit_per_minute

    def limit_rate(self, per_minute: int) -> None:
        """Set the number of accepted requests; a minute begins with the next request."""
        self._rate_limit_per_minute = per_minute
        self._budget.renew(per_minute)
        self._strangers.renew(per_minute)

    def served(self, after: int = 0) -> list[Served]:
        """The requests with a number above `after` that are still kept."""
        return [entry for entry in self._served if entry.n > after]

    def answer(self, incoming: Incoming, now: int, skew: int = 0) -> tuple[Answer, Served]:
        """The response at `now` (ms), and its record in the log. The response is dated `skew` (ms)
        later."""
        number = next(self._numbers)
        upstream_id = incoming.headers.get("x-integration-id")
        parameters = dict(parse_qsl(incoming.query_string, keep_blank_values=True))
        asked = [parameters[name] for name in ("ids", "remote_ids") if name in parameters]
        faults = self.faults.draw(Target(upstream_id, "cursor" in parameters, bool(asked)))
        authentic = self._is_authentic(incoming.headers)
        allowance = (self._budget if authentic else self._strangers).spend(now)
        headers = {"content-type": JSON, "date": date_header(now + skew), **rate_headers(allowance)}
        status, code, page = 200, None, _NO_PAGE
        try:
            _refuse_by_fault(faults, headers)
            page = self._page(incoming, allowance, faults, authentic=authentic)
            body = page.body
        except _RefusedError as refusal:
            status, code = refusal.status, refusal.code
            body = error_body(code, str(refusal), number)
        except _BypassedError as bypass:
            status, body = bypass.status, HTML_BODY
            headers = {"content-type": "text/html", "date": headers["date"]}
        entry = Served(
            n=number,
            at=format_time(now),
            upstream_id=upstream_id,
            parameters=parameters,
            status=status,
            code=code,
            records=page.records,
            ids=sum(value.count(",") + 1 for value in asked) if asked else None,
            more=page.more,
            faults=tuple(str(fault.__struct_config__.tag) for fault in faults),
        )
        self._served.append(entry)
        return travelling(status, headers, body, faults), entry

    def _is_authentic(self, headers: Mapping[str, str]) -> bool:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            key.strip().encode(), self._api_key.encode()
        )

    def _page(
        self,
        incoming: Incoming,
        allowance: Allowance,
        faults: list[AnyFault],
        *,
        authentic: bool,
    ) -> _Page:
        catalogue = self._admitted(incoming, allowance, authentic=authentic)
        upstream_id = catalogue.upstream_id
        try:
            query = parse_query(read_parameters(incoming.query_string))
            position = PagePosition()
            if query.cursor is not None:
                position = self._cursors.read(query.cursor, upstream_id, query)
        except InvalidInputError as error:
            raise _RefusedError("PLATFORM.INPUT_INVALID", str(error)) from error
        if _has(faults, EmptyFault):
            return _Page(page_body([], None), 0, more=False)
        missing = [fault for fault in faults if isinstance(fault, VanishFault)]
        found = catalogue.select(
            query,
            position.after,
            (lambda course_id: any(fault.hides(course_id) for fault in missing))
            if missing
            else None,
            shift=sum(fault.by for fault in faults if isinstance(fault, ShiftFault)),
        )
        following = _following(position, found.next_after, faults)
        cursor = None
        if following is not None:
            cursor = self._cursors.issue(following, upstream_id, query)
        return _Page(
            _with_wrong_types(found.records, cursor, faults),
            len(found.records),
            cursor is not None,
        )

    def _admitted(self, incoming: Incoming, allowance: Allowance, *, authentic: bool) -> Catalogue:
        if incoming.method != "GET":
            raise _RefusedError(None, f"{incoming.method} is not offered here.", 405)
        if not allowance.granted:
            raise _RefusedError(
                "PLATFORM.RATE_LIMIT_EXCEEDED",
                f"More than {allowance.limit} requests in a minute.",
            )
        if not authentic:
            raise _RefusedError("PLATFORM.AUTHENTICATION_INVALID", "The bearer token is not known.")
        upstream_id = incoming.headers.get("x-integration-id", "")
        if not upstream_id:
            raise _RefusedError("PLATFORM.INPUT_INVALID", "headers.X-Integration-Id: is required")
        catalogue = self.catalogues.get(upstream_id)
        if catalogue is None:
            raise _RefusedError(
                "PLATFORM.INTEGRATION_NOT_FOUND", f"There is no integration {upstream_id!r}."
            )
        return catalogue


def _refuse_by_fault(faults: list[AnyFault], headers: dict[str, str]) -> None:
    """Raise the error of the first fault that replaces the response."""
    for fault in faults:
        if isinstance(fault, HtmlFault):
            raise _BypassedError(fault.status)
        if isinstance(fault, ErrorFault):
            if fault.retry_after is not None:
                headers["retry-after"] = str(fault.retry_after)
            raise _RefusedError(fault.code, fault.message, fault.status)


def _following(
    position: PagePosition, next_after: int | None, faults: list[AnyFault]
) -> PagePosition | None:
    """The position of the page after the one at `position`; None if there is none."""
    if _has(faults, EndEarlyFault):
        return None
    if _has(faults, RepeatCursorFault):
        return position
    if next_after is not None:
        return PagePosition(next_after, position.lap)
    return PagePosition(lap=position.lap + 1) if _has(faults, EndlessFault) else None


def _with_wrong_types(records: list[bytes], cursor: str | None, faults: list[AnyFault]) -> bytes:
    """The page, with the types that the faults set."""
    struck = [fault for fault in faults if isinstance(fault, WrongTypesFault)]
    if any(fault.where == "page" for fault in struck):
        return page_with_object(records, cursor)
    for fault in struck:
        records = [
            with_wrong_type(record, fault.path) if fault.spoils(record_id(record)) else record
            for record in records
        ]
    return page_body(records, cursor)


def _has(faults: list[AnyFault], kind: type[AnyFault]) -> bool:
    return any(isinstance(fault, kind) for fault in faults)
