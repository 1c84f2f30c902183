"""`/v1/credentials`: base URLs of the upstream and the API keys that open them."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from litestar import Controller, Response, delete, get, patch, post

from service.api import cursors, views
from service.api.forms import Field, Form, Table
from service.api.openapi import problems, reads
from service.api.parsers import base_url, text, visible
from service.api.requests import (
    PAGE_SIZE,
    AnyRequest,
    Document,
    GivenServices,
    PathId,
    now_ms,
    page_table,
    query_form,
)
from service.api.schemas import CredentialList, CredentialView
from service.domain.integrations import Credential
from service.storage.ids import new_id

FIELDS: Table = {
    "name": Field(parser=text(200), meaning="what people call it", required=True),
    "base_url": Field(
        parser=base_url("https://api.kombo.dev/v1"),
        meaning="the upstream's base URL, the part before /lms/courses",
        required=True,
    ),
    "api_key": Field(
        parser=visible(500),
        meaning="the upstream's API key; it is sealed and never returned",
        required=True,
        write_only=True,
    ),
}
REQUIRED = tuple(name for name, field in FIELDS.items() if field.required)
READ_ONLY = ("id", "created_at", "updated_at")
PAGE = page_table()


class CredentialController(Controller):
    """Thin over the credential store."""

    path = "/credentials"
    tags = ["Credentials"]  # noqa: RUF012 - Litestar reads it as it is

    @post(
        summary="Create a credential",
        operation_class=reads(body=FIELDS, required=REQUIRED),
        responses=problems(
            HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY
        ),
    )
    async def create(self, document: Document, services: GivenServices) -> Response[CredentialView]:
        """Several integrations may share one credential."""
        form = Form(document, FIELDS, required=REQUIRED, read_only=READ_ONLY)
        form.check_target("base_url", services.guard.check_url)
        values = form.accept()
        api_key = values.pop("api_key")
        now = now_ms()
        credential = Credential(id=new_id("cred"), created_at=now, updated_at=now, **values)
        await services.credentials.create(credential, api_key)
        return Response(
            views.credential(credential), headers={"location": f"/v1/credentials/{credential.id}"}
        )

    @get(
        summary="List credentials",
        operation_class=reads(query=PAGE),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY),
    )
    async def index(self, request: AnyRequest, services: GivenServices) -> CredentialList:
        """In the order of creation."""
        query = query_form(request, PAGE).accept()
        found, position = await services.credentials.page(
            query.get("limit", PAGE_SIZE), query.get("after")
        )
        return CredentialList(
            [views.credential(one) for one in found], cursors.write_index(position)
        )

    @get(
        "/{credential_id:str}",
        summary="Show a credential",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    )
    async def show(self, credential_id: PathId, services: GivenServices) -> CredentialView:
        """Without its API key."""
        return views.credential(await services.credentials.get(credential_id))

    @patch(
        "/{credential_id:str}",
        summary="Change a credential",
        operation_class=reads(body=FIELDS, editing=True),
        responses=problems(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.NOT_FOUND,
            HTTPStatus.CONFLICT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ),
    )
    async def edit(
        self,
        credential_id: PathId,
        document: Document,
        services: GivenServices,
    ) -> CredentialView:
        """Changes what is sent. Another `base_url` begins a new epoch of every integration that
        uses the credential; another `api_key` makes each of them be walked at once."""
        form = Form(document, FIELDS, editing=True, read_only=READ_ONLY)
        form.check_target("base_url", services.guard.check_url)
        values = form.accept()
        api_key = values.pop("api_key", None)

        def change(credential: Credential) -> Credential:
            return msgspec.structs.replace(credential, updated_at=now_ms(), **values)

        return views.credential(await services.credentials.update(credential_id, change, api_key))

    @delete(
        "/{credential_id:str}",
        summary="Delete a credential",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT),
    )
    async def remove(self, credential_id: PathId, services: GivenServices) -> None:
        """Refused while integrations use it."""
        await services.credentials.delete(credential_id)
