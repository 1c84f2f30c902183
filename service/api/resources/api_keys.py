"""`/v1/api-keys`: tokens besides the admin's, and what each of them opens."""

from __future__ import annotations

from http import HTTPStatus

import msgspec
from litestar import Controller, Response, delete, get, patch, post

from service.api.access.audit_trail import ACTION
from service.api.http import cursors
from service.api.http.problems import CONFLICT
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
from service.api.schema.field_types import (
    identifier,
    labels,
    list_of,
    nullable,
    one_of,
    text,
    timestamp,
)
from service.api.schema.form import Field, Form, Table
from service.api.schema.operations import problems, reads
from service.api.schema.schemas import ApiKeyList, ApiKeyView
from service.bootstrap import Services
from service.clock import now_ms
from service.domain.access.grants import NOTHING, ApiKey, Grant, Scope
from service.ids import new_id
from service.storage.registry.api_keys import StoredKey, new_token

GRANTS = ("integration_ids", "labels")
FIELDS: Table = {
    "name": Field(parser=text(200), meaning="what people call it", required=True),
    "scope": Field(
        parser=one_of(Scope),
        meaning="admin: everything; subscriber: its own subscriptions, their deliveries, and the "
        "course events granted to it; read: reads everything but secrets; metrics: /metrics alone",
        required=True,
        fixed="create another key",
    ),
    "integration_ids": Field(
        parser=nullable(list_of(identifier("int"), least=1, most=1_000)),
        meaning="of a subscriber: the integrations whose course events it may see",
    ),
    "labels": Field(
        parser=nullable(labels()),
        meaning="of a subscriber: it may see course events that carry all of these labels, "
        "besides those of integration_ids",
    ),
    "expires_at": Field(
        parser=nullable(timestamp()), meaning="when it opens nothing any more; null: never"
    ),
}
REQUIRED = ("name", "scope")
READ_ONLY = ("id", "prefix", "created_at", "updated_at", "last_used_at", "token")
PAGE = page_table()


class ApiKeyController(Controller):
    """Thin over the store of API keys."""

    path = "/api-keys"
    tags = ["Access"]  # noqa: RUF012 - Litestar reads it as it is

    @post(
        summary="Create an API key",
        opt={ACTION: "api_key.created"},
        response_description="The new key, with its token",
        operation_class=reads(body=FIELDS, required=REQUIRED),
        responses=problems(
            HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY
        ),
    )
    async def create(self, document: Document, services: GivenServices) -> Response[ApiKeyView]:
        """The answer alone carries the token: only a hash of it is kept."""
        form = Form(document, FIELDS, required=REQUIRED, read_only=READ_ONLY)
        await _check(form, services)
        scope = form.values.get("scope")
        given = [name for name in GRANTS if form.values.get(name)]
        if scope == Scope.SUBSCRIBER and not given:
            form.refuse("integration_ids", "is required", "send it, or labels, or both")
        if scope not in (None, Scope.SUBSCRIBER):
            for name in given:
                form.refuse(name, f"goes with scope {Scope.SUBSCRIBER} only", "leave it out")
        values = form.accept()
        now = now_ms()
        key = ApiKey(
            id=new_id("key"),
            name=values["name"],
            scope=Scope(values["scope"]),
            created_at=now,
            updated_at=now,
            expires_at=values.get("expires_at"),
            grant=_grant(NOTHING, values) if given else None,
        )
        token = await services.api_keys.create(key)
        return Response(
            views.api_key(StoredKey(key=key, last_used_at=None), token),
            headers={"location": f"/v1/api-keys/{key.id}"},
        )

    @get(
        summary="List API keys",
        response_description="A page of API keys",
        operation_class=reads(query=PAGE),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY),
    )
    async def index(self, request: AnyRequest, services: GivenServices) -> ApiKeyList:
        """In the order of creation, without those that were revoked."""
        query = query_form(request, PAGE).accept()
        found, position = await services.api_keys.page(
            query.get("limit", PAGE_SIZE), query.get("after")
        )
        return ApiKeyList([views.api_key(one) for one in found], cursors.write_index(position))

    @get(
        "/{key_id:str}",
        summary="Show an API key",
        response_description="The API key",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    )
    async def show(self, key_id: PathId, services: GivenServices) -> ApiKeyView:
        """Without its token."""
        return views.api_key(await services.api_keys.get(key_id))

    @patch(
        "/{key_id:str}",
        summary="Change an API key",
        opt={ACTION: "api_key.updated"},
        response_description="The changed API key",
        operation_class=reads(body=FIELDS, editing=True),
        responses=problems(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.NOT_FOUND,
            CONFLICT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ),
    )
    async def edit(self, key_id: PathId, document: Document, services: GivenServices) -> ApiKeyView:
        """Changes what is sent. What a narrower grant no longer covers is not sent any more, even
        where it is pending."""
        form = Form(document, FIELDS, editing=True, read_only=READ_ONLY)
        await _check(form, services)
        values = form.accept()
        given = [name for name in GRANTS if name in values]

        def change(before: ApiKey) -> ApiKey:
            grant = before.grant
            if given and before.scope is not Scope.SUBSCRIBER:
                for name in given:
                    form.refuse(name, f"goes with scope {Scope.SUBSCRIBER} only", "leave it out")
            elif given:
                grant = _grant(before.grant or NOTHING, values)
                if grant == NOTHING:
                    form.refuse(given[0], "would leave nothing", "revoke the key instead")
            form.accept()
            return msgspec.structs.replace(
                before,
                name=values.get("name", before.name),
                expires_at=values.get("expires_at", before.expires_at),
                grant=grant,
                updated_at=max(now_ms(), before.updated_at + 1),
            )

        return views.api_key(await services.api_keys.update(key_id, change))

    @post(
        "/{key_id:str}/token/rotate",
        status_code=HTTPStatus.OK,
        summary="Rotate an API key's token",
        opt={ACTION: "api_key.token_rotated"},
        response_description="The API key, with its new token",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, CONFLICT),
    )
    async def rotate(self, key_id: PathId, services: GivenServices) -> ApiKeyView:
        """For a token that others may know: the key keeps what it owns and what it may, and the
        token until now opens nothing any more, within a second."""

        def change(before: ApiKey) -> ApiKey:
            at = max(now_ms(), before.updated_at + 1)
            return msgspec.structs.replace(before, updated_at=at)

        token = new_token(key_id)
        return views.api_key(await services.api_keys.update(key_id, change, token), token)

    @delete(
        "/{key_id:str}",
        summary="Revoke an API key",
        opt={ACTION: "api_key.revoked"},
        response_description="It is revoked",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    )
    async def revoke(self, key_id: PathId, services: GivenServices) -> None:
        """Its token opens nothing any more, within a second. Subscriptions that it created stay
        and get no more events; what is pending on them becomes dead when it would be sent."""
        await services.api_keys.revoke(key_id)


def _grant(before: Grant, values: dict[str, object]) -> Grant:
    """The grant with what was sent of it."""
    sent = {name: values[name] for name in GRANTS if name in values}
    if "integration_ids" in sent:
        sent["integration_ids"] = sent["integration_ids"] or ()
    if "labels" in sent:
        sent["labels"] = sent["labels"] or None
    return msgspec.structs.replace(before, **sent)


async def _check(form: Form, services: Services) -> None:
    expires_at = form.values.get("expires_at")
    if expires_at is not None and expires_at <= now_ms():
        form.refuse("expires_at", "has passed", "send a time to come, or null for never")
    ids = form.values.get("integration_ids") or ()
    found = await services.integrations.get_many(ids)
    for index, (integration_id, integration) in enumerate(zip(ids, found, strict=True)):
        if integration is None:
            form.refuse(
                f"integration_ids[{index}]",
                f"there is no integration {integration_id}",
                "register it first, or leave it out",
            )
