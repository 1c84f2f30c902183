"""`/v1/audit`: who changed what and when."""

from __future__ import annotations

from http import HTTPStatus

from litestar import Controller, get

from service.api.access.authentication import SHOWS_SECRETS
from service.api.http import cursors
from service.api.http.requests import LIMIT, PAGE_SIZE, AnyRequest, GivenServices, after, query_form
from service.api.schema import views
from service.api.schema.form import Table
from service.api.schema.operations import problems, reads
from service.api.schema.schemas import AuditList

PAGE: Table = {"limit": LIMIT, "after": after(cursors.read_log)}


class AuditController(Controller):
    """Thin over the trail."""

    path = "/audit"
    tags = ["Access"]  # noqa: RUF012 - Litestar reads it as it is

    @get(
        summary="List who changed what",
        response_description="A page of the audit trail",
        opt={SHOWS_SECRETS: True},
        operation_class=reads(query=PAGE),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY),
    )
    async def index(self, request: AnyRequest, services: GivenServices) -> AuditList:
        """The newest first, the last 10,000. Names of fields, never values."""
        query = query_form(request, PAGE).accept()
        found, position = await services.audit.page(
            query.get("limit", PAGE_SIZE), query.get("after")
        )
        return AuditList([views.audit(one) for one in found], cursors.write_log(position))
