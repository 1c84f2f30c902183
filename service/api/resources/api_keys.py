"""`/v1/api-keys`: tokens besides the admin's, and the rights of each."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, ClassVar

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET, Meta, UnsetType

from service.api.access.audit_trail import ACTION
from service.api.access.route_guards import ADMINS, READERS
from service.api.fields import samples
from service.api.fields.kinds import IntegrationIds, Labels, Moment, means, text
from service.api.fields.readers import Fields, given
from service.api.fields.refusals import Refusals
from service.api.fields.views import Page, Timestamp, View
from service.api.http import cursors
from service.api.http.problem_types import CONFLICT
from service.api.http.problems import PROBLEMS
from service.api.http.requests import GivenRefusals, GivenServices, IndexQuery, PathId
from service.bootstrap import Services
from service.clock import now_ms
from service.domain.access.grants import NOTHING, ApiKey, Grant, Scope
from service.ids import new_id
from service.storage.security.api_keys import StoredKey, token_prefix

GRANTS = ("integration_ids", "labels")
MAX_OVERLAP_SECONDS = 604_800
_Name = Annotated[str, text(200), means("a name for people")]


class ApiKeyView(View, frozen=True, kw_only=True):
    """An API key. Only responses that create the key or rotate its token contain `token`."""

    example: ClassVar = {
        "id": samples.KEY,
        "name": "search team",
        "prefix": "cw_2z1y7h3k",
        "scope": "subscriber",
        "integration_ids": None,
        "labels": {"region": "eu"},
        "created_at": samples.EARLIER,
        "updated_at": samples.EARLIER,
        "expires_at": None,
        "last_used_at": samples.AT,
        "previous_token_expires_at": None,
    }
    id: Annotated[str, means("its id")]
    name: Annotated[str, means("a name for people")]
    prefix: Annotated[str, means("the beginning of its token, to identify a leaked token")]
    scope: Annotated[str, means("admin, subscriber, read or metrics")]
    integration_ids: Annotated[
        tuple[str, ...] | None,
        means("integrations whose events a subscriber may see; null: none by id"),
    ]
    labels: Annotated[
        dict[str, str] | None,
        means("a subscriber may see events that carry all of these labels; null: none by labels"),
    ]
    created_at: Annotated[Timestamp, means("when it was created")]
    updated_at: Annotated[Timestamp, means("when it was last changed")]
    expires_at: Annotated[Timestamp | None, means("when it expires; null: never")]
    last_used_at: Annotated[
        Timestamp | None, means("when it was last used, to the minute; null: never")
    ]
    previous_token_expires_at: Annotated[
        Timestamp | None,
        means(
            "when the token from before the last rotation expires; null: only one token is valid"
        ),
    ]
    token: Annotated[
        str | UnsetType, means("the bearer token; only in the response that generates it")
    ] = UNSET

    @classmethod
    def of(cls, stored: StoredKey, token: str | UnsetType = UNSET) -> ApiKeyView:
        """An API key; its `token` only in the response that generates it."""
        grant = stored.key.grant or NOTHING
        return cls.show(
            stored.key,
            stored,
            prefix=token_prefix(stored.key.id),
            integration_ids=grant.integration_ids or None,
            labels=grant.labels,
            previous_token_expires_at=stored.previous_until,
            token=token,
        )


class ApiKeyList(Page, frozen=True, kw_only=True):
    """A page of API keys in the order of creation; `next` is the cursor of the next page."""

    items: Annotated[list[ApiKeyView], means("the page")]


class ApiKeyChange(Fields, frozen=True, kw_only=True):
    """The changed fields of an API key."""

    shown: ClassVar = ApiKeyView
    fixed: ClassVar = {"scope": "create another key"}
    examples: ClassVar = {"name": ("Another name", {"name": "search and catalogue team"})}
    name: _Name | UnsetType = UNSET
    integration_ids: Annotated[
        IntegrationIds | UnsetType | None,
        means("of a subscriber: the integrations whose course events it may see"),
    ] = UNSET
    labels: Annotated[
        Labels | UnsetType | None,
        means(
            "of a subscriber: it may see course events that carry all of these labels, besides "
            "those of integration_ids"
        ),
    ] = UNSET
    expires_at: Annotated[Moment | UnsetType | None, means("when it expires; null: never")] = UNSET


class ApiKeyCreate(ApiKeyChange, frozen=True, kw_only=True):
    """A new API key."""

    fixed: ClassVar = {}
    examples: ClassVar = {
        "subscriber": (
            "For a team",
            {"name": "search team", "scope": "subscriber", "labels": {"region": "eu"}},
        )
    }
    name: _Name
    scope: Annotated[
        Scope,
        means(
            "admin: all operations; subscriber: its own subscriptions, their deliveries, and the "
            "course events granted to it; read: reads everything except secrets and the audit "
            "trail; metrics: reads /metrics and /v1/me"
        ),
    ]


class TokenRotation(Fields, frozen=True, kw_only=True):
    """How a token is replaced."""

    examples: ClassVar = {"day": ("Both are valid for a day", {"overlap_seconds": 86400})}
    overlap_seconds: Annotated[
        int,
        Meta(ge=0, le=MAX_OVERLAP_SECONDS, extra={"unit": "seconds"}),
        means("how long the current token stays valid beside the new one; 0 revokes it at once"),
    ] = 0


_AT_ONCE = TokenRotation()  # for an empty body


class ApiKeyController(Controller):
    """Calls the store of API keys."""

    path = "/api-keys"
    tags = ["Access"]  # noqa: RUF012 - Litestar reads it as it is

    @post(
        operation_id="createAPIKey",
        summary="Create an API key",
        response_description="The new key, with its token",
        guards=[ADMINS],
        opt={ACTION: "api_key.created"},
    )
    async def create(
        self, data: JSONBody[ApiKeyCreate], refusals: GivenRefusals, services: GivenServices
    ) -> Response[ApiKeyView]:
        """Store the token in the response: Coursewire keeps only its hash."""
        await _check(data, refusals, services)
        grants = [name for name in GRANTS if getattr(data, name)]
        if data.scope == Scope.SUBSCRIBER and not grants:
            refusals.refuse("integration_ids", "is required", "send it, or labels, or both")
        if data.scope and data.scope != Scope.SUBSCRIBER:
            _refuse_grants(refusals, grants)
        refusals.settle()
        now = now_ms()
        key = ApiKey(
            id=new_id("key"),
            name=data.name,
            scope=data.scope,
            created_at=now,
            updated_at=now,
            expires_at=data.expires_at or None,
            grant=_grant(NOTHING, data) if grants else None,
        )
        token = await services.api_keys.create(key)
        return Response(
            ApiKeyView.of(StoredKey(key=key, last_used_at=None), token),
            headers={"location": f"/v1/api-keys/{key.id}"},
        )

    @get(
        operation_id="listAPIKeys",
        summary="List API keys",
        response_description="A page of API keys",
        guards=[READERS],
    )
    async def index(
        self, params: NamedDependency[IndexQuery], services: GivenServices
    ) -> ApiKeyList:
        """Lists the keys in the order of creation, without revoked keys."""
        found, position = await services.api_keys.page(params.limit, params.after or None)
        return ApiKeyList(
            items=[ApiKeyView.of(one) for one in found], next=cursors.write_index(position)
        )

    @get(
        "/{key_id:str}",
        operation_id="showAPIKey",
        summary="Show an API key",
        response_description="The API key",
        guards=[READERS],
    )
    async def show(self, key_id: PathId, services: GivenServices) -> ApiKeyView:
        """Does not return the token."""
        return ApiKeyView.of(await services.api_keys.get(key_id))

    @patch(
        "/{key_id:str}",
        operation_id="changeAPIKey",
        summary="Change an API key",
        response_description="The changed API key",
        guards=[ADMINS],
        opt={ACTION: "api_key.updated", PROBLEMS: (CONFLICT,)},
    )
    async def edit(
        self,
        key_id: PathId,
        data: JSONBody[ApiKeyChange],
        refusals: GivenRefusals,
        services: GivenServices,
    ) -> ApiKeyView:
        """Changes the fields in the body. Events that a narrower grant no longer covers are not
        sent, even if their delivery is pending."""
        await _check(data, refusals, services)
        refusals.settle()
        values = given(data)
        grants = [name for name in GRANTS if name in values]

        def change(before: ApiKey) -> ApiKey:
            grant = before.grant
            if grants and before.scope is not Scope.SUBSCRIBER:
                _refuse_grants(refusals, grants)
            elif grants:
                grant = _grant(before.grant or NOTHING, data)
                if grant == NOTHING:
                    refusals.refuse(
                        grants[0], "would leave the key without any right", "revoke the key instead"
                    )
            refusals.settle()
            return msgspec.structs.replace(
                before,
                name=data.name or before.name,
                expires_at=values.get("expires_at", before.expires_at),
                grant=grant,
                updated_at=max(now_ms(), before.updated_at + 1),
            )

        return ApiKeyView.of(await services.api_keys.update(key_id, change))

    @post(
        "/{key_id:str}/token/rotate",
        status_code=HTTPStatus.OK,
        operation_id="rotateAPIKeyToken",
        summary="Rotate an API key's token",
        response_description="The API key, with its new token",
        guards=[ADMINS],
        opt={ACTION: "api_key.token_rotated", PROBLEMS: (CONFLICT,)},
    )
    async def rotate(
        self, key_id: PathId, services: GivenServices, data: JSONBody[TokenRotation] = _AT_ONCE
    ) -> ApiKeyView:
        """The key keeps its subscriptions and its rights. The current token expires within a
        second, or after `overlap_seconds`, so that clients can replace it without an interruption.
        At most two tokens of a key are valid. The body is optional."""
        stored, token = await services.api_keys.rotate(key_id, data.overlap_seconds * 1000)
        return ApiKeyView.of(stored, token)

    @delete(
        "/{key_id:str}",
        operation_id="revokeAPIKey",
        summary="Revoke an API key",
        response_description="The key is revoked",
        guards=[ADMINS],
        opt={ACTION: "api_key.revoked"},
    )
    async def revoke(self, key_id: PathId, services: GivenServices) -> None:
        """The token becomes invalid within a second. The subscriptions that belong to the key are
        not deleted, but receive no more events. Their pending deliveries become dead when they are
        due."""
        await services.api_keys.revoke(key_id)


def _grant(before: Grant, data: ApiKeyChange) -> Grant:
    """The grant with the fields that were sent."""
    return msgspec.structs.replace(
        before,
        integration_ids=before.integration_ids
        if data.integration_ids is UNSET
        else data.integration_ids or (),
        labels=before.labels if data.labels is UNSET else data.labels or None,
    )


def _refuse_grants(refusals: Refusals, names: list[str]) -> None:
    for name in names:
        refusals.refuse(name, f"goes with scope {Scope.SUBSCRIBER} only", "leave it out")


async def _check(data: ApiKeyChange, refusals: Refusals, services: Services) -> None:
    if data.expires_at not in (None, UNSET) and data.expires_at <= now_ms():
        refusals.refuse("expires_at", "has passed", "send a time to come, or null for never")
    ids = data.integration_ids or ()
    found = await services.integrations.get_many(ids)
    for index, (integration_id, integration) in enumerate(zip(ids, found, strict=True)):
        if integration is None:
            refusals.refuse(
                f"integration_ids[{index}]",
                f"there is no integration {integration_id}",
                "register it first, or leave it out",
            )
