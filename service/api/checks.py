"""Asks the upstream once with given values, and says in words what its answer means."""

from __future__ import annotations

from service.api.schemas import CheckResult
from service.clients.upstream import PageQuery, UpstreamClient, UpstreamCredential
from service.domain.errors import (
    UpstreamAuthError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamInputError,
    UpstreamModelUnavailableError,
    UpstreamNotFoundError,
    UpstreamNotReadyError,
    UpstreamPageError,
    UpstreamRateLimitedError,
    UpstreamTargetRefusedError,
    UpstreamUnavailableError,
)

_REMEDIES: dict[type[UpstreamError], str] = {
    UpstreamAuthError: (
        "check api_key and base_url (each region has its own), and whether the upstream "
        "admits this server's address"
    ),
    UpstreamNotFoundError: "check upstream_id, and that base_url is that of its region",
    UpstreamNotReadyError: (
        "complete the set-up at the upstream; its first sync can take hours, and walks begin "
        "by themselves once it is done"
    ),
    UpstreamTargetRefusedError: "set COURSEWIRE_ALLOWED_TARGETS as the message says, or another "
    "base_url",
    UpstreamModelUnavailableError: "enable courses for this integration at the upstream",
    UpstreamRateLimitedError: "wait a minute and check again",
    UpstreamBusyError: "wait a minute and check again",
    UpstreamInputError: "check upstream_id and base_url",
    UpstreamPageError: "check that base_url is the upstream's, up to and including /v1",
    UpstreamUnavailableError: "check base_url and that this server can reach it; try again",
}


async def check(
    upstream: UpstreamClient, credential: UpstreamCredential, upstream_id: str
) -> CheckResult:
    """The result of one request for a single record."""
    try:
        page = await upstream.fetch_page(credential, upstream_id, PageQuery(page_size=1))
    except UpstreamError as error:
        remedy = next(
            (_REMEDIES[kind] for kind in type(error).__mro__ if kind in _REMEDIES),
            "look into the upstream's log",
        )
        return CheckResult(
            ok=False,
            code=error.code or type(error).__name__.removesuffix("Error"),
            status=error.status,
            message=str(error),
            remedy=remedy,
        )
    return CheckResult(ok=True, records_seen=len(page.results))
