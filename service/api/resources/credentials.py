"""`/v1/credentials`: upstream base URLs and their API keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar

import httpx
import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET, UnsetType

from service.api.access.audit_trail import ACTION
from service.api.access.route_guards import ADMINS, READERS
from service.api.fields import samples
from service.api.fields.kinds import means, pasted_key, text
from service.api.fields.readers import Fields, given
from service.api.fields.urls import read_base_url, url
from service.api.fields.views import Page, Timestamp, View
from service.api.http import cursors
from service.api.http.etags import GivenIfMatch, precondition, tagged
from service.api.http.problem_types import CONFLICT, CREDENTIAL_IN_USE, INTEGRATION_EXISTS
from service.api.http.problems import PROBLEMS
from service.api.http.requests import GivenRefusals, GivenServices, IndexQuery, PathId
from service.clients.address_guard import SETTING, AddressGuard
from service.clock import now_ms
from service.domain.errors import TargetRefusedError
from service.domain.polling.integration import Credential
from service.ids import new_id

Name = Annotated[str, text(200), means("a name for people")]
UpstreamUrl = Annotated[str, url(read_base_url, "https://api.kombo.dev/v1")]
UpstreamKey = Annotated[str, pasted_key(500)]
_BaseUrl = Annotated[UpstreamUrl, means("the upstream's base URL, the part before /lms/courses")]
_ApiKey = Annotated[
    UpstreamKey,
    means(
        "the upstream's API key; it is encrypted and never returned. White space and quotes around "
        "it and `Bearer` before it are removed"
    ),
]


class CredentialView(View, frozen=True, kw_only=True):
    """A credential; its API key is never returned."""

    tagged: ClassVar = True
    example: ClassVar = {
        "id": samples.CREDENTIAL,
        "name": "Acme",
        "base_url": "https://api.kombo.dev/v1",
        "inline": False,
        "created_at": samples.EARLIER,
        "updated_at": samples.EARLIER,
    }
    id: Annotated[str, means("its id")]
    name: Annotated[str, means("a name for people")]
    base_url: Annotated[str, means("the upstream's base URL")]
    inline: Annotated[
        bool,
        means(
            "whether the registration of an integration created it: such a credential is "
            "deleted with its last integration"
        ),
    ]
    created_at: Annotated[Timestamp, means("when it was created")]
    updated_at: Annotated[Timestamp, means("when it was last changed")]


class CredentialList(Page, frozen=True, kw_only=True):
    """A page of credentials in the order of creation; `next` is the cursor of the next page."""

    items: Annotated[list[CredentialView], means("the page")]


class CredentialCreate(Fields, frozen=True, kw_only=True):
    """A new credential."""

    shown: ClassVar = CredentialView
    examples: ClassVar = {
        "kombo": (
            "An account of Kombo",
            {"name": "Acme", "base_url": "https://api.kombo.dev/v1", "api_key": "KEY"},
        )
    }
    name: Name
    base_url: _BaseUrl
    api_key: _ApiKey


class CredentialChange(Fields, frozen=True, kw_only=True):
    """The changed fields of a credential."""

    shown: ClassVar = CredentialView
    examples: ClassVar = {"key": ("A new API key", {"api_key": "ANOTHER_KEY"})}
    name: Name | UnsetType = UNSET
    base_url: _BaseUrl | UnsetType = UNSET
    api_key: _ApiKey | UnsetType = UNSET


_PUBLIC_ONLY = AddressGuard()


def upstream_check(guard: AddressGuard) -> Callable[[str], None]:
    """Requires of a base URL that the address guard allows it, and that the API key does not cross
    public networks in clear."""

    def check(url: str) -> None:
        guard.check_url(url)
        parts = httpx.URL(url)
        if parts.scheme == "https" or guard.allows_name(parts.host):
            return
        try:
            _PUBLIC_ONLY.check_url(url)
        except TargetRefusedError:
            return  # only the operator's exceptions allow it, so it is a private network
        raise TargetRefusedError(
            "http:// would send the API key in clear; use https:// "
            f"(for a name of your own network, add {parts.host} to {SETTING} and restart)"
        )

    return check


class CredentialController(Controller):
    """Calls the credential store."""

    path = "/credentials"
    tags = ["Credentials"]  # noqa: RUF012 - Litestar reads it as it is

    @post(
        operation_id="createCredential",
        summary="Create a credential",
        response_description="The new credential",
        guards=[ADMINS],
        opt={ACTION: "credential.created"},
    )
    async def create(
        self, data: JSONBody[CredentialCreate], refusals: GivenRefusals, services: GivenServices
    ) -> Response[CredentialView]:
        """Several integrations can share one credential."""
        refusals.check_target("base_url", data.base_url, upstream_check(services.guard))
        refusals.settle()
        now = now_ms()
        credential = Credential(
            id=new_id("cred"),
            name=data.name,
            base_url=data.base_url,
            created_at=now,
            updated_at=now,
        )
        await services.credentials.create(credential, data.api_key)
        shown = _shown(credential)
        shown.set_header("location", f"/v1/credentials/{credential.id}")
        return shown

    @get(
        operation_id="listCredentials",
        summary="List credentials",
        response_description="A page of credentials",
        guards=[READERS],
    )
    async def index(
        self, params: NamedDependency[IndexQuery], services: GivenServices
    ) -> CredentialList:
        """Lists the credentials in the order of creation."""
        found, position = await services.credentials.page(params.limit, params.after or None)
        return CredentialList(
            items=[CredentialView.show(one) for one in found], next=cursors.write_index(position)
        )

    @get(
        "/{credential_id:str}",
        operation_id="showCredential",
        summary="Show a credential",
        response_description="The credential",
        guards=[READERS],
    )
    async def show(
        self, credential_id: PathId, services: GivenServices
    ) -> Response[CredentialView]:
        """Does not return the API key."""
        return _shown(await services.credentials.get(credential_id))

    @patch(
        "/{credential_id:str}",
        operation_id="changeCredential",
        summary="Change a credential",
        response_description="The changed credential",
        guards=[ADMINS],
        opt={ACTION: "credential.updated", PROBLEMS: (CONFLICT, INTEGRATION_EXISTS)},
    )
    async def edit(
        self,
        credential_id: PathId,
        data: JSONBody[CredentialChange],
        refusals: GivenRefusals,
        sent_headers: GivenIfMatch,
        services: GivenServices,
    ) -> Response[CredentialView]:
        """Changes the fields in the body. A different `base_url` starts a new epoch of every
        integration that uses the credential. A new `api_key` starts a poll of each of these
        integrations, except of paused ones."""
        refusals.check_target("base_url", data.base_url, upstream_check(services.guard))
        refusals.settle()
        values = given(data)
        api_key = values.pop("api_key", None)
        check = precondition(sent_headers)

        def change(before: Credential) -> Credential:
            check(before)
            at = max(now_ms(), before.updated_at + 1)
            return msgspec.structs.replace(before, updated_at=at, **values)

        return _shown(await services.credentials.update(credential_id, change, api_key))

    @delete(
        "/{credential_id:str}",
        operation_id="deleteCredential",
        summary="Delete a credential",
        response_description="The credential is deleted",
        guards=[ADMINS],
        opt={ACTION: "credential.deleted", PROBLEMS: (CREDENTIAL_IN_USE,)},
    )
    async def remove(
        self, credential_id: PathId, sent_headers: GivenIfMatch, services: GivenServices
    ) -> None:
        """Fails while integrations use the credential. The error lists the first 20 of them."""
        await services.credentials.delete(credential_id, precondition(sent_headers))


def _shown(credential: Credential) -> Response[CredentialView]:
    return Response(CredentialView.show(credential), headers=tagged(credential))
