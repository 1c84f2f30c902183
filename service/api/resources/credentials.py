"""`/v1/credentials`: base URLs of the upstream and the API keys that open them."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

import httpx
import msgspec
from litestar import Controller, Response, delete, get, patch, post

from service.api.access.audit_trail import ACTION
from service.api.http import cursors
from service.api.http.etags import HEADERS as IF_MATCH
from service.api.http.etags import precondition, tagged
from service.api.http.problems import (
    CONFLICT,
    CREDENTIAL_IN_USE,
    INTEGRATION_EXISTS,
    PRECONDITION_FAILED,
)
from service.api.http.requests import (
    PAGE_SIZE,
    AnyRequest,
    Document,
    GivenServices,
    PathId,
    page_table,
    query_form,
)
from service.api.schema import views
from service.api.schema.field_types import base_url, pasted_key, text
from service.api.schema.form import Field, Form, Table
from service.api.schema.operations import problems, reads
from service.api.schema.schemas import CredentialList, CredentialView
from service.clients.egress import SETTING, AddressGuard
from service.clock import now_ms
from service.domain.errors import TargetRefusedError
from service.domain.polling.integration import Credential
from service.ids import new_id

FIELDS: Table = {
    "name": Field(parser=text(200), meaning="what people call it", required=True),
    "base_url": Field(
        parser=base_url("https://api.kombo.dev/v1"),
        meaning="the upstream's base URL, the part before /lms/courses",
        required=True,
    ),
    "api_key": Field(
        parser=pasted_key(500),
        meaning="the upstream's API key; it is encrypted and never returned. White space and "
        "quotes around it and `Bearer` before it are removed",
        required=True,
        write_only=True,
    ),
}
REQUIRED = tuple(name for name, field in FIELDS.items() if field.required)
READ_ONLY = ("id", "created_at", "updated_at")
PAGE = page_table()

_PUBLIC_ONLY = AddressGuard()


def upstream_check(guard: AddressGuard) -> Callable[[str], None]:
    """What `Form.check_target` asks of a base URL: the guard may allow it, and the API key does
    not cross other people's networks in clear."""

    def check(url: str) -> None:
        guard.check_url(url)
        parts = httpx.URL(url)
        if parts.scheme == "https" or guard.allows_name(parts.host):
            return
        try:
            _PUBLIC_ONLY.check_url(url)
        except TargetRefusedError:
            return  # only the operator's exceptions open it, so it is a network of their own
        raise TargetRefusedError(
            "http:// would send the API key in clear; use https:// "
            f"(for a name of your own network, {SETTING}={parts.host} would allow http://)"
        )

    return check


class CredentialController(Controller):
    """Thin over the credential store."""

    path = "/credentials"
    tags = ["Credentials"]  # noqa: RUF012 - Litestar reads it as it is

    @post(
        summary="Create a credential",
        opt={ACTION: "credential.created"},
        response_description="The new credential",
        operation_class=reads(body=FIELDS, required=REQUIRED),
        responses=problems(
            HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY
        ),
    )
    async def create(self, document: Document, services: GivenServices) -> Response[CredentialView]:
        """Several integrations may share one credential."""
        form = Form(document, FIELDS, required=REQUIRED, read_only=READ_ONLY)
        form.check_target("base_url", upstream_check(services.guard))
        values = form.accept()
        api_key = values.pop("api_key")
        now = now_ms()
        credential = Credential(id=new_id("cred"), created_at=now, updated_at=now, **values)
        await services.credentials.create(credential, api_key)
        return Response(
            views.credential(credential),
            headers={"location": f"/v1/credentials/{credential.id}", **tagged(credential)},
        )

    @get(
        summary="List credentials",
        response_description="A page of credentials",
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
        response_description="The credential",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    )
    async def show(
        self, credential_id: PathId, services: GivenServices
    ) -> Response[CredentialView]:
        """Without its API key."""
        return _shown(await services.credentials.get(credential_id))

    @patch(
        "/{credential_id:str}",
        summary="Change a credential",
        opt={ACTION: "credential.updated"},
        response_description="The changed credential",
        operation_class=reads(body=FIELDS, editing=True, headers=IF_MATCH),
        responses=problems(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.NOT_FOUND,
            CONFLICT,
            INTEGRATION_EXISTS,
            PRECONDITION_FAILED,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ),
    )
    async def edit(
        self,
        credential_id: PathId,
        document: Document,
        request: AnyRequest,
        services: GivenServices,
    ) -> Response[CredentialView]:
        """Changes what is sent. Another `base_url` begins a new epoch of every integration that
        uses the credential; another `api_key` makes each of them be polled at once."""
        form = Form(document, FIELDS, editing=True, read_only=READ_ONLY)
        form.check_target("base_url", upstream_check(services.guard))
        values = form.accept()
        api_key = values.pop("api_key", None)

        check = precondition(request)

        def change(before: Credential) -> Credential:
            check(before)
            at = max(now_ms(), before.updated_at + 1)
            return msgspec.structs.replace(before, updated_at=at, **values)

        return _shown(await services.credentials.update(credential_id, change, api_key))

    @delete(
        "/{credential_id:str}",
        summary="Delete a credential",
        opt={ACTION: "credential.deleted"},
        response_description="It is deleted",
        operation_class=reads(headers=IF_MATCH),
        responses=problems(
            HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, CREDENTIAL_IN_USE, PRECONDITION_FAILED
        ),
    )
    async def remove(
        self, credential_id: PathId, request: AnyRequest, services: GivenServices
    ) -> None:
        """Refused while integrations use it."""
        await services.credentials.delete(credential_id, precondition(request))


def _shown(credential: Credential) -> Response[CredentialView]:
    return Response(views.credential(credential), headers=tagged(credential))
