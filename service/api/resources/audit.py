"""`/v1/audit`: the actor, time and fields of each change."""

from __future__ import annotations

from typing import Annotated, ClassVar

from litestar import get
from litestar.di import NamedDependency

from service.api.access.route_guards import ADMINS
from service.api.fields import samples
from service.api.fields.kinds import means
from service.api.fields.views import Page, Timestamp, View
from service.api.http import cursors
from service.api.http.requests import GivenServices, LogQuery


class AuditView(View, frozen=True, kw_only=True):
    """An audited action."""

    example: ClassVar = {
        "at": samples.AT,
        "actor": samples.KEY,
        "action": "subscription.updated",
        "object_id": samples.SUBSCRIPTION,
        "fields": ["paused"],
        "request_id": "req_fgf4xy2sd4zj8pf5nw4m",
        "address": "192.0.2.7",
    }
    at: Annotated[Timestamp, means("when the action was recorded")]
    actor: Annotated[
        str | None,
        means(
            "the id of the API key, or the name of another actor, such as `admin token`; null: "
            "unauthenticated"
        ),
    ]
    action: Annotated[str, means("the action, such as subscription.updated")]
    object_id: Annotated[str | None, means("the id of the resource")]
    fields: Annotated[tuple[str, ...], means("the names of the fields that were sent")]
    request_id: Annotated[
        str | None, means("the `X-Request-ID` of the response, as in the log; null: not recorded")
    ]
    address: Annotated[
        str | None, means("the address of the client, or of the last proxy before the service")
    ]


class AuditList(Page, frozen=True, kw_only=True):
    """A page of the audit trail, the newest record first; `next` is the cursor of the next page."""

    items: Annotated[list[AuditView], means("the page")]


@get(
    "/audit",
    operation_id="listAuditEntries",
    summary="List audit records",
    response_description="A page of the audit trail",
    tags=["Access"],
    guards=[ADMINS],
)
async def list_audit_entries(
    params: NamedDependency[LogQuery], services: GivenServices
) -> AuditList:
    """Returns the newest record first. The audit trail keeps about 10,000 records. A record
    contains the names of the fields that were sent, never their values."""
    found, position = await services.audit.page(params.limit, params.after or None)
    return AuditList(
        items=[AuditView.show(one, one.record) for one in found], next=cursors.write_log(position)
    )
