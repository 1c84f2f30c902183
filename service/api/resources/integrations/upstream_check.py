"""Sends the upstream one request with given values, and explains the response in words."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, ClassVar

from service.api.fields.kinds import means
from service.api.fields.views import View
from service.clients.upstream import PageQuery, UpstreamClient
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.errors import UpstreamError
from service.domain.polling.integration import UNCONFIRMED_CODE

_BASE_URL = (
    "check that base_url ends in /v1 (not in /lms/courses), and that nothing else answers in the "
    "API's place"
)
_REDIRECTED = "set base_url to the address of the API itself: redirects are not followed"
_UNREACHED = "check base_url, and that this server can reach it, unless the failure is temporary"
_KEY = (
    "check api_key and base_url (each region has its own), and whether the upstream admits this "
    "server's address"
)
_UPSTREAM_ID = "check upstream_id, and that base_url is that of its region"
_SET_UP = (
    "complete the set-up at the upstream; its first sync can take hours, and polls begin by "
    "themselves once it is done"
)
_WAIT = "wait a minute; if the failure persists, ask the upstream for a higher limit"

_FAILS = "wait: the upstream fails; if the failure persists, contact its operators"

# By the upstream's code or, if it sent none, by the name of the failure.
_BY_CODE = {
    "PLATFORM.AUTHENTICATION_INVALID": _KEY,
    "PLATFORM.IP_NOT_WHITELISTED": "admit this server's address at the upstream",
    "PLATFORM.INTEGRATION_NOT_FOUND": _UPSTREAM_ID,
    "PLATFORM.INPUT_INVALID": "check upstream_id and base_url",
    "PLATFORM.TASK_TIMED_OUT": _FAILS,
    "PLATFORM.UNKNOWN_ERROR": _FAILS,
    "REMOTE.SERVICE_UNAVAILABLE": _FAILS,
    "PLATFORM.RATE_LIMIT_EXCEEDED": _WAIT,
    "PLATFORM.CONCURRENCY_LIMIT_EXCEEDED": _WAIT,
    "REMOTE.RATE_LIMIT_EXCEEDED": _WAIT,
    "INTEGRATION.SETUP_INCOMPLETE": _SET_UP,
    "INTEGRATION.SETUP_SYNC_PENDING": _SET_UP,
    "INTEGRATION.QA_FAILED": _SET_UP,
    "INTEGRATION.MODEL_NOT_AVAILABLE": "enable courses for this integration at the upstream",
    UNCONFIRMED_CODE: (
        "nothing of this integration is stopped; report to the upstream's operators "
        "that requests with ids= do not show courses that exist. Such courses stay "
        "live here until a full poll can confirm that they are gone, or the upstream "
        "sends a tombstone"
    ),
    "UpstreamTargetRefused": "follow the message, or set another base_url",
    "UpstreamProxy": "correct COURSEWIRE_EGRESS_PROXY; `coursewire doctor` tries it",
    "FingerprintVersion": (
        "go back to the release that wrote it, or delete the integration and register it again"
    ),
    "RedisMemory": "give Redis more memory, or shorten the retention of events",
    "UpstreamPaging": (
        "nothing, if the failure is temporary; otherwise contact the upstream's operators"
    ),
    "UpstreamNotFound": _BASE_URL,
    "UpstreamInput": "check upstream_id and base_url",
    "UpstreamPage": (
        "nothing, if the failure is temporary; otherwise send the message to the "
        "upstream's operators"
    ),
    "UpstreamAuth": _KEY,
}
# Used where the response may not come from the API.
_ELSEWHERE = {"UpstreamInput": _BASE_URL, "UpstreamPage": _BASE_URL}
_BY_STATUS: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: _KEY,
    HTTPStatus.FORBIDDEN: _KEY,
    HTTPStatus.NOT_FOUND: _UPSTREAM_ID,
    HTTPStatus.REQUEST_TIMEOUT: _FAILS,
    HTTPStatus.CONFLICT: _SET_UP,
    HTTPStatus.TOO_EARLY: _FAILS,
    HTTPStatus.TOO_MANY_REQUESTS: _WAIT,
}


class CheckResult(View, frozen=True, kw_only=True, omit_defaults=True):
    """The result of one small request to the upstream: `records_seen` if it succeeded, otherwise
    the failure and its remedy."""

    example: ClassVar = {"ok": True, "records_seen": 1}
    ok: Annotated[bool, means("whether the upstream returned a page")]
    records_seen: Annotated[int | None, means("the number of courses on the page")] = None
    code: Annotated[
        str | None, means("the upstream's error code, or the name of what went wrong")
    ] = None
    status: Annotated[int | None, means("the upstream's HTTP status")] = None
    message: Annotated[str | None, means("a description of the failure")] = None
    remedy: Annotated[str | None, means("the remedy")] = None


def code_of(error: UpstreamError) -> str:
    """The upstream's code, or the name of the failure."""
    return error.code or type(error).__name__.removesuffix("Error")


def remedy(code: str, status: int | None, *, elsewhere: bool = False) -> str:
    """The remedy of a failure: its code decides, then its HTTP status. `elsewhere` means that the
    response may not come from the API."""
    if code == "UpstreamPage" and status is not None and 300 <= status < 400:
        return _REDIRECTED
    if elsewhere and (suspected := _ELSEWHERE.get(code)) is not None:
        return suspected
    if (known := _BY_CODE.get(code)) is not None:
        return known
    if status is None:
        return _UNREACHED
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _FAILS
    return _BY_STATUS.get(status, "check the upstream's log")


async def check(
    upstream: UpstreamClient, credential: UpstreamCredential, upstream_id: str
) -> CheckResult:
    """The result of one request for a single record."""
    try:
        page = await upstream.fetch_page(credential, upstream_id, PageQuery(page_size=1))
    except UpstreamError as error:
        return failed(error)
    return CheckResult(ok=True, records_seen=len(page.results))


def failed(error: UpstreamError) -> CheckResult:
    """The result of a request that failed."""
    code = code_of(error)
    return CheckResult(
        ok=False,
        code=code,
        status=error.status,
        message=str(error),
        remedy=remedy(code, error.status, elsewhere=error.elsewhere),
    )
