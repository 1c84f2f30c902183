"""`/v1/integrations`: register, change and check them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET

from service.api.access.audit_trail import ACTION
from service.api.access.route_guards import ADMINS, READERS
from service.api.fields.readers import given
from service.api.fields.refusals import Refusals
from service.api.http import cursors
from service.api.http.etags import GivenIfMatch, precondition, tagged
from service.api.http.problem_types import CONFLICT, INTEGRATION_EXISTS, LIMIT_REACHED
from service.api.http.problems import PROBLEMS
from service.api.http.requests import GivenRefusals, GivenServices, PathId
from service.api.resources.credentials import upstream_check
from service.api.resources.filtering import has_labels, is_named, page_through
from service.api.resources.integrations.integration_bodies import (
    GuardLimits,
    IntegrationChange,
    IntegrationCheck,
    IntegrationCreate,
    IntegrationQuery,
)
from service.api.resources.integrations.integration_views import IntegrationList, IntegrationView
from service.api.resources.integrations.upstream_check import CheckResult
from service.api.resources.integrations.upstream_check import check as check_upstream
from service.bootstrap import Services
from service.clock import now_ms
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.polling.integration import Credential, Integration, PollingState
from service.domain.review.guards import Guards
from service.ids import new_id
from service.storage.registry.filters import RecordFilter
from service.storage.registry.integrations import PrepareCredential

INLINE = ("base_url", "api_key")  # the fields of a credential


class IntegrationController(Controller):
    """Calls the integration store."""

    path = "/integrations"
    tags = ["Integrations"]  # noqa: RUF012 - Litestar reads it as it is

    @post(
        guards=[ADMINS],
        operation_id="registerIntegration",
        summary="Register an integration",
        opt={
            ACTION: "integration.created",
            PROBLEMS: (CONFLICT, INTEGRATION_EXISTS, LIMIT_REACHED),
        },
        response_description="The new integration",
    )
    async def create(
        self, data: JSONBody[IntegrationCreate], refusals: GivenRefusals, services: GivenServices
    ) -> Response[IntegrationView]:
        """The first poll starts at once, unless `paused` is true. A second registration of the same
        upstream integration is a conflict, and the error contains the id of the first one. If a
        credential with this `base_url` and `api_key` exists, it is used. Otherwise Coursewire
        creates a credential, which is deleted with its last integration."""
        await _check_credential(data, refusals, services)
        refusals.settle()
        values = given(data)
        now = now_ms()
        prepare = _prepare_credential(values, services, now)
        values["guards"] = Guards(**given(data.guards or GuardLimits()))
        integration = Integration(id=new_id("int"), created_at=now, updated_at=now, **values)
        await services.integrations.create(integration, prepare)
        shown = await _shown(services, integration.id)
        shown.set_header("location", f"/v1/integrations/{integration.id}")
        return shown

    @get(
        guards=[READERS],
        operation_id="listIntegrations",
        summary="List integrations",
        response_description="A page of integrations",
    )
    async def index(
        self, params: NamedDependency[IntegrationQuery], services: GivenServices
    ) -> IntegrationList:
        """Lists the integrations in the order of creation. A filtered page examines at most 10,000
        integrations, so it can contain few integrations, or none, although `next` is not null."""
        place = params.after or None
        if params.state or params.name or params.label:
            wanted = RecordFilter.of(params.state or None, params.name or None)
            taken, position = await page_through(
                partial(services.integrations.search, wanted),
                partial(_takes, params),
                params.limit,
                place,
            )
            stored = await services.integrations.get_many([one.id for one in taken])
            found = [one for one in stored if one is not None]
        else:
            found, position = await services.integrations.page(params.limit, place)
        return IntegrationList(
            items=await _views(services, found), next=cursors.write_index(position)
        )

    @get(
        "/{integration_id:str}",
        guards=[READERS],
        operation_id="showIntegration",
        summary="Show an integration",
        response_description="The integration",
    )
    async def show(
        self, integration_id: PathId, services: GivenServices
    ) -> Response[IntegrationView]:
        """Returns the registration and the current state."""
        return await _shown(services, integration_id)

    @patch(
        "/{integration_id:str}",
        guards=[ADMINS],
        operation_id="changeIntegration",
        summary="Change an integration",
        opt={ACTION: "integration.updated", PROBLEMS: (CONFLICT, INTEGRATION_EXISTS)},
        response_description="The changed integration",
    )
    async def edit(
        self,
        integration_id: PathId,
        data: JSONBody[IntegrationChange],
        refusals: GivenRefusals,
        sent_headers: GivenIfMatch,
        services: GivenServices,
    ) -> Response[IntegrationView]:
        """Changes the fields in the body. A different `upstream_id`, or a credential with a
        different base URL, starts a new epoch with a new baseline. So does a different `baseline`
        while the baseline is not complete. Other changes start no epoch."""
        if not refusals.sent.isdisjoint(INLINE):
            integration, _ = await services.integrations.get(integration_id)
            refusals.fill_in(credential_id=integration.credential_id)
        await _check_known(data, refusals, services)
        refusals.settle()
        values = given(data)
        guards = given(values.pop("guards", GuardLimits()))
        check = precondition(sent_headers)

        def change(integration: Integration) -> Integration:
            check(integration)
            return msgspec.structs.replace(
                integration,
                updated_at=max(now_ms(), integration.updated_at + 1),
                guards=msgspec.structs.replace(integration.guards, **guards),
                **values,
            )

        await services.integrations.update(integration_id, change)
        return await _shown(services, integration_id)

    @delete(
        "/{integration_id:str}",
        guards=[ADMINS],
        operation_id="deleteIntegration",
        summary="Delete an integration",
        opt={ACTION: "integration.deleted", PROBLEMS: (CONFLICT,)},
        response_description="The integration is deleted",
    )
    async def remove(
        self, integration_id: PathId, sent_headers: GivenIfMatch, services: GivenServices
    ) -> None:
        """Creates no event. Pending events are still sent. The credential is not deleted, unless a
        registration created it and no other integration uses it."""
        await services.integrations.delete(integration_id, precondition(sent_headers))

    @post(
        "/check",
        status_code=HTTPStatus.OK,
        guards=[ADMINS],
        operation_id="tryValues",
        summary="Try values before registering them",
        opt={ACTION: None},
        response_description="The result of the check",
    )
    async def check_values(
        self, data: JSONBody[IntegrationCheck], refusals: GivenRefusals, services: GivenServices
    ) -> CheckResult:
        """Sends one small request to the upstream with these values. Nothing is saved."""
        await _check_credential(data, refusals, services)
        refusals.settle()
        if data.credential_id:
            credential = await services.credentials.decrypt(data.credential_id)
        else:
            credential = UpstreamCredential(data.base_url or "", data.api_key or "")
        return await check_upstream(services.upstream, credential, data.upstream_id)

    @post(
        "/{integration_id:str}/check",
        status_code=HTTPStatus.OK,
        guards=[ADMINS],
        operation_id="tryIntegration",
        summary="Try an integration's values",
        opt={ACTION: None},
        response_description="The result of the check",
    )
    async def check_stored(self, integration_id: PathId, services: GivenServices) -> CheckResult:
        """Sends one small request to the upstream with the stored values. Nothing is saved."""
        integration, _ = await services.integrations.get(integration_id)
        credential = await services.credentials.decrypt(integration.credential_id)
        return await check_upstream(services.upstream, credential, integration.upstream_id)


def _takes(params: IntegrationQuery, one: Integration) -> bool:
    """The condition of a query's filters, without the states."""
    return is_named(params.name or None, one.name, one.external_id) and has_labels(
        one.labels, params.label or ()
    )


async def _check_credential(data: IntegrationCheck, refusals: Refusals, services: Services) -> None:
    """Requires a credential, or the fields of one."""
    inline = [name for name in INLINE if name in refusals.sent]
    if "credential_id" in refusals.sent:
        for name in inline:
            refusals.refuse(name, "contradicts credential_id", "send one or the other")
    elif not inline:
        refusals.refuse("credential_id", "is required", "send it, or base_url and api_key")
    elif len(inline) == 1:
        missing = "api_key" if inline == ["base_url"] else "base_url"
        refusals.refuse(missing, f"is required with {inline[0]}", "send both, or credential_id")
    refusals.check_target("base_url", data.base_url, upstream_check(services.guard))
    await _check_known(data, refusals, services)


async def _check_known(
    data: IntegrationCheck | IntegrationChange, refusals: Refusals, services: Services
) -> None:
    credential_id = data.credential_id
    if credential_id is UNSET:
        return
    (known,) = await services.credentials.get_many([credential_id])
    if known is None:
        refusals.refuse(
            "credential_id", f"there is no credential {credential_id}", "create it, or correct it"
        )


def _prepare_credential(
    values: dict[str, Any], services: Services, now: int
) -> PrepareCredential | None:
    """Takes the fields of a credential out, and finds or creates one with them."""
    if "api_key" not in values:
        return None
    credential = Credential(
        id=new_id("cred"),
        name=values["name"],
        base_url=values.pop("base_url"),
        created_at=now,
        updated_at=now,
        inline=True,
    )
    values["credential_id"] = credential.id
    return partial(services.credentials.prepare, credential, values.pop("api_key"))


async def _shown(services: Services, integration_id: str) -> Response[IntegrationView]:
    stored = await services.integrations.get(integration_id)
    (view,) = await _views(services, [stored])
    return Response(view, headers=tagged(stored[0]))


async def _views(
    services: Services, found: Sequence[tuple[Integration, PollingState]]
) -> list[IntegrationView]:
    ids = [integration.id for integration, _ in found]
    polls = await services.integrations.latest_polls(ids)
    due = await services.schedule.next_at("polls", ids)
    return [
        IntegrationView.of(integration, state, poll, at)
        for (integration, state), poll, at in zip(found, polls, due, strict=True)
    ]
