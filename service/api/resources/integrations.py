"""`/v1/integrations`: connected learning systems, their polls and their courses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Controller, Response, delete, get, patch, post

from service.api.access.audit_trail import ACTION
from service.api.http import cursors
from service.api.http.etags import HEADERS as IF_MATCH
from service.api.http.etags import precondition, tagged
from service.api.http.problems import (
    CONFLICT,
    INTEGRATION_EXISTS,
    LIMIT_REACHED,
    PRECONDITION_FAILED,
)
from service.api.http.requests import (
    COURSE_ID,
    LIMIT,
    PAGE_SIZE,
    AnyRequest,
    Document,
    GivenServices,
    PathId,
    after,
    page_table,
    provide_document,
    query_form,
    rest_of_path,
)
from service.api.resources.credentials import FIELDS as CREDENTIAL_FIELDS
from service.api.resources.credentials import upstream_check
from service.api.resources.upstream_check import check as check_upstream
from service.api.schema import views
from service.api.schema.field_types import (
    boolean,
    fields_of,
    identifier,
    labels,
    list_of,
    nullable,
    number,
    one_of,
    text,
    visible,
    whole_number,
)
from service.api.schema.filtering import filters, has_labels, is_named, page_through
from service.api.schema.form import Field, Form, Table
from service.api.schema.operations import problems, reads
from service.api.schema.schemas import (
    CheckResult,
    CourseList,
    CourseView,
    IntegrationList,
    IntegrationView,
    PollList,
    PollView,
)
from service.bootstrap import Services
from service.clients.upstream import UpstreamCredential
from service.clock import now_ms
from service.domain.courses.fingerprint import TRACKED_PATHS
from service.domain.errors import ConflictError, NotFoundError
from service.domain.polling.integration import (
    DELTA_INTERVAL_SECONDS,
    FULL_INTERVAL_SECONDS,
    Baseline,
    Credential,
    Integration,
    IntegrationState,
    PollingState,
    state_of,
)
from service.domain.review.guards import Guards
from service.ids import new_id
from service.storage.redis.paging import IndexPosition
from service.storage.registry.integrations import Stored

DEFAULT_GUARDS = Guards()
MAX_DELTA_INTERVAL = 86_400
MAX_FULL_INTERVAL = 13 * 86_400  # tombstones are anonymised after 14 days

CREDENTIAL_REMEDY = "change its credential: PATCH /v1/credentials/{}"

FIELDS: Table = {
    "name": Field(parser=text(200), meaning="what people call it", required=True),
    "upstream_id": Field(
        parser=visible(200, "workday:HWUTwvyx2wLoSUHphiWVrp28"),
        meaning="its X-Integration-Id at the upstream",
        required=True,
    ),
    "credential_id": Field(
        parser=identifier("cred"),
        meaning="the credential to use; or send base_url and api_key to make one",
    ),
    "base_url": Field(
        parser=CREDENTIAL_FIELDS["base_url"].parser,
        meaning="instead of credential_id: the base URL of a credential of its own",
        fixed=CREDENTIAL_REMEDY.format("{id}"),
        write_only=True,
    ),
    "api_key": Field(
        parser=CREDENTIAL_FIELDS["api_key"].parser,
        meaning="instead of credential_id: the API key of a credential of its own",
        fixed=CREDENTIAL_REMEDY.format("{id}"),
        write_only=True,
    ),
    "external_id": Field(
        parser=nullable(text(200)),
        meaning="your own name for it, repeated in every event",
    ),
    "labels": Field(
        parser=labels(), meaning="your own labels, repeated in every event, to filter by"
    ),
    "delta_interval_seconds": Field(
        parser=whole_number(1, MAX_DELTA_INTERVAL, "seconds"),
        meaning="from one look for changed courses to the next",
        default=DELTA_INTERVAL_SECONDS,
    ),
    "full_interval_seconds": Field(
        parser=whole_number(1, MAX_FULL_INTERVAL, "seconds"),
        meaning="from one look at all courses to the next",
        default=FULL_INTERVAL_SECONDS,
    ),
    "baseline": Field(
        parser=one_of(Baseline),
        meaning="whether the courses of the first complete full poll are reported as created",
        default=str(Baseline.SILENT),
    ),
    "ignore_paths": Field(
        parser=list_of(one_of(TRACKED_PATHS), least=0, most=len(TRACKED_PATHS)),
        meaning="paths whose changes are not reported",
    ),
    "track_remote_data": Field(
        parser=boolean(),
        meaning="whether changes of remote_data count as changes",
        default=False,
    ),
    "guards": Field(
        parser=fields_of(
            {
                "deleted_count": Field(
                    parser=whole_number(0, 10_000_000),
                    meaning="so many deletions of one poll are never held",
                    default=DEFAULT_GUARDS.deleted_count,
                ),
                "deleted_share": Field(
                    parser=number(0, 1, "1 switches it off"),
                    meaning="more deletions than this share of the live courses are held",
                    default=DEFAULT_GUARDS.deleted_share,
                ),
                "deleted_share_max": Field(
                    parser=number(0, 1, "1 switches it off"),
                    meaning="more than this share are held however few they are",
                    default=DEFAULT_GUARDS.deleted_share_max,
                ),
                "changed_count": Field(
                    parser=whole_number(1, 10_000_000),
                    meaning="fewer courses that changed in one path are never held",
                    default=DEFAULT_GUARDS.changed_count,
                ),
                "changed_share": Field(
                    parser=number(0, 1, "1 switches it off"),
                    meaning="more than this share of the live courses are held",
                    default=DEFAULT_GUARDS.changed_share,
                ),
            }
        ),
        meaning="how much change in one poll is held for review; what is left out stays",
    ),
    "paused": Field(parser=boolean(), meaning="whether it is not polled", default=False),
}
REQUIRED = tuple(name for name, field in FIELDS.items() if field.required)
INLINE = ("base_url", "api_key")  # a credential's values
READ_ONLY = (
    *("id", "created_at", "updated_at", "state", "epoch", "held", "course_count"),
    *("quarantined", "clock_skew_seconds", "last_poll", "next_poll_at", "error", "notices"),
)
POLL_FIELDS: Table = {
    "kind": Field(
        parser=one_of(("delta", "full")),
        meaning="delta: changed courses; full poll: all courses",
        default="delta",
    )
}
FILTERS = filters(tuple(IntegrationState), "their name or external_id")
PAGE = page_table(**FILTERS)
COURSE_PAGE: Table = {
    "course_id": COURSE_ID,
    "limit": LIMIT,
    "after": after(cursors.read_scan),
}


class IntegrationController(Controller):
    """Thin over the integration store."""

    path = "/integrations"
    tags = ["Integrations"]  # noqa: RUF012 - Litestar reads it as it is

    @post(
        summary="Register an integration",
        opt={ACTION: "integration.created"},
        response_description="The new integration",
        operation_class=reads(body=FIELDS, required=REQUIRED),
        responses=problems(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            CONFLICT,
            INTEGRATION_EXISTS,
            LIMIT_REACHED,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ),
    )
    async def create(
        self, document: Document, services: GivenServices
    ) -> Response[IntegrationView]:
        """Its first poll begins at once. The same upstream integration twice is a conflict that
        names the existing one."""
        form = Form(document, FIELDS, required=REQUIRED, read_only=READ_ONLY)
        await _check_credential(form, services)
        values = form.accept()
        made = await _make_credential(values, services)
        now = now_ms()
        values["guards"] = Guards(**values.get("guards", {}))
        integration = Integration(id=new_id("int"), created_at=now, updated_at=now, **values)
        try:
            await services.integrations.create(integration)
        except (ConflictError, NotFoundError):
            if made is not None:
                await services.credentials.delete(made)
            raise
        shown = await _shown(services, integration.id)
        shown.set_header("location", f"/v1/integrations/{integration.id}")
        return shown

    @get(
        summary="List integrations",
        response_description="A page of integrations",
        operation_class=reads(query=PAGE),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY),
    )
    async def index(self, request: AnyRequest, services: GivenServices) -> IntegrationList:
        """In the order of creation, which neither additions nor deletions disturb."""
        query = query_form(request, PAGE).accept()
        read, limit = services.integrations.page, query.get("limit", PAGE_SIZE)
        if query.keys().isdisjoint(FILTERS):
            found, position = await read(limit, query.get("after"))
        else:
            found, position = await page_through(
                read, _wanted(query), _place_of, limit, query.get("after")
            )
        return IntegrationList(await _views(services, found), cursors.write_index(position))

    @get(
        "/{integration_id:str}",
        summary="Show an integration",
        response_description="The integration",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    )
    async def show(
        self, integration_id: PathId, services: GivenServices
    ) -> Response[IntegrationView]:
        """As registered and as it goes."""
        return await _shown(services, integration_id)

    @patch(
        "/{integration_id:str}",
        summary="Change an integration",
        opt={ACTION: "integration.updated"},
        response_description="The changed integration",
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
        integration_id: PathId,
        document: Document,
        request: AnyRequest,
        services: GivenServices,
    ) -> Response[IntegrationView]:
        """Changes what is sent. Another `upstream_id`, or a credential with another base URL,
        begins a new epoch with a new baseline, and so does another `baseline` while the first
        is not complete; nothing else resets anything."""
        table = FIELDS
        if not document.keys().isdisjoint(INLINE):
            integration, _ = await services.integrations.get(integration_id)
            table = _for_editing(integration.credential_id)
        form = Form(document, table, editing=True, read_only=READ_ONLY)
        await _check_known(form, services)
        values = form.accept()

        guards = values.pop("guards", {})
        check = precondition(request)

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
        summary="Delete an integration",
        opt={ACTION: "integration.deleted"},
        response_description="It is deleted",
        operation_class=reads(headers=IF_MATCH),
        responses=problems(
            HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, CONFLICT, PRECONDITION_FAILED
        ),
    )
    async def remove(
        self, integration_id: PathId, request: AnyRequest, services: GivenServices
    ) -> None:
        """Reports nothing; events that are pending still go out. Its credential stays."""
        await services.integrations.delete(integration_id, precondition(request))

    # --- checks --------------------------------------------------------------------------

    @post(
        "/check",
        status_code=HTTPStatus.OK,
        summary="Try values before registering them",
        opt={ACTION: None},
        response_description="What came of it",
        operation_class=reads(body=FIELDS, required=("upstream_id",)),
        responses=problems(
            HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY
        ),
    )
    async def check_values(self, document: Document, services: GivenServices) -> CheckResult:
        """One small request to the upstream with these values; nothing is saved."""
        form = Form(document, FIELDS, required=("upstream_id",), read_only=READ_ONLY)
        await _check_credential(form, services)
        values = form.accept()
        if "credential_id" in values:
            credential = await _opened(services, values["credential_id"])
        else:
            credential = UpstreamCredential(values["base_url"], values["api_key"])
        return await check_upstream(services.upstream, credential, values["upstream_id"])

    @post(
        "/{integration_id:str}/check",
        status_code=HTTPStatus.OK,
        summary="Try an integration's values",
        opt={ACTION: None},
        response_description="What came of it",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    )
    async def check_stored(self, integration_id: PathId, services: GivenServices) -> CheckResult:
        """One small request to the upstream with the stored values; nothing is saved."""
        integration, _ = await services.integrations.get(integration_id)
        credential = await _opened(services, integration.credential_id)
        return await check_upstream(services.upstream, credential, integration.upstream_id)

    # --- polls ---------------------------------------------------------------------------

    @post(
        "/{integration_id:str}/polls",
        status_code=HTTPStatus.ACCEPTED,
        summary="Poll an integration now",
        opt={ACTION: "integration.poll_requested"},
        response_description="The queued poll",
        operation_class=reads(body=POLL_FIELDS),
        responses=problems(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.NOT_FOUND,
            CONFLICT,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ),
    )
    async def request_poll(
        self,
        integration_id: PathId,
        request: AnyRequest,
        services: GivenServices,
    ) -> Response[PollView]:
        """Queues a poll and returns it. One that is under way or queued already is joined: a
        full poll serves for a delta, and a queued delta becomes the full poll asked for. A poll
        under way that was joined is followed by the next at once, for what it had passed by."""
        document = await provide_document(request) if await request.body() else {}
        kind = Form(document, POLL_FIELDS).accept().get("kind", "delta")
        poll = await services.integrations.request_poll(integration_id, kind, now_ms())
        return Response(
            views.poll(poll),
            headers={"location": f"/v1/integrations/{integration_id}/polls/{poll.id}"},
        )

    @get(
        "/{integration_id:str}/polls",
        summary="List recent polls",
        response_description="The polls",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    )
    async def polls(self, integration_id: PathId, services: GivenServices) -> PollList:
        """The latest 50, the latest first."""
        found = await services.integrations.list_polls(integration_id)
        return PollList([views.poll(poll) for poll in found], None)

    @get(
        "/{integration_id:str}/polls/{poll_id:str}",
        summary="Show a poll",
        response_description="The poll",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    )
    async def poll(
        self,
        integration_id: PathId,
        poll_id: PathId,
        services: GivenServices,
    ) -> PollView:
        """What it has seen and changed so far."""
        return views.poll(await services.integrations.get_poll(integration_id, poll_id))

    # --- courses -------------------------------------------------------------------------

    @get(
        "/{integration_id:str}/courses",
        summary="List the courses of an integration",
        response_description="A page of courses",
        operation_class=reads(query=COURSE_PAGE),
        responses=problems(
            HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY
        ),
    )
    async def courses(
        self,
        integration_id: PathId,
        request: AnyRequest,
        services: GivenServices,
    ) -> CourseList:
        """What is kept of each, in no order. A page may hold few courses, or none, and still lead
        on. Deleted courses stay listed for the epoch."""
        query = query_form(request, COURSE_PAGE).accept()
        _, state = await services.integrations.get(integration_id)
        if (course_id := query.get("course_id")) is not None:
            try:
                row = await services.catalogue.row(integration_id, state.epoch, course_id)
            except NotFoundError:
                return CourseList([], None)
            return CourseList([views.course(row)], None)
        rows, place = await services.catalogue.rows(
            integration_id, state.epoch, query.get("limit", PAGE_SIZE), query.get("after")
        )
        return CourseList([views.course(row) for row in rows], cursors.write_scan(place))

    @get(
        "/{integration_id:str}/courses/{course_id:path}",
        summary="Show a course",
        response_description="The course",
        operation_class=reads(),
        responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND),
    )
    async def course(
        self,
        integration_id: PathId,
        course_id: PathId,
        request: AnyRequest,
        services: GivenServices,
    ) -> CourseView:
        """What is kept of it; its content is not. Percent-encode the id. An id that clients or
        proxies rewrite in a path, such as one that is or contains `..` or `//`, is found by the
        `course_id` of the list instead."""
        _, state = await services.integrations.get(integration_id)
        course_id = rest_of_path(request, f"/{integration_id}/courses/", course_id)
        return views.course(await services.catalogue.row(integration_id, state.epoch, course_id))


def _wanted(query: dict[str, Any]) -> Callable[[list[Stored]], Awaitable[list[bool]]]:
    """What the filters of a query let through."""

    def takes(integration: Integration, state: PollingState) -> bool:
        return (
            ("state" not in query or state_of(integration, state) in query["state"])
            and is_named(query.get("name"), integration.name, integration.external_id)
            and has_labels(integration.labels, query.get("label", ()))
        )

    async def takes_each(found: list[Stored]) -> list[bool]:
        return [takes(*stored) for stored in found]

    return takes_each


def _place_of(stored: Stored) -> IndexPosition:
    return IndexPosition(stored[0].created_at, stored[0].id)


def _for_editing(credential_id: str) -> Table:
    """The fields, where a credential's values say which credential to change instead."""
    fixed = CREDENTIAL_REMEDY.format(credential_id)
    return {
        **FIELDS,
        **{name: msgspec.structs.replace(FIELDS[name], fixed=fixed) for name in INLINE},
    }


async def _check_credential(form: Form, services: Services) -> None:
    """A registration names a credential or brings the values of one."""
    inline = [name for name in INLINE if form.sent(name)]
    if form.sent("credential_id"):
        for name in inline:
            form.refuse(name, "contradicts credential_id", "send one or the other")
    elif not inline:
        form.refuse("credential_id", "is required", "send it, or base_url and api_key")
    elif len(inline) == 1:
        missing = "api_key" if inline == ["base_url"] else "base_url"
        form.refuse(missing, f"is required with {inline[0]}", "send both, or credential_id")
    form.check_target("base_url", upstream_check(services.guard))
    await _check_known(form, services)


async def _check_known(form: Form, services: Services) -> None:
    credential_id = form.values.get("credential_id")
    if credential_id is None:
        return
    (known,) = await services.credentials.get_many([credential_id])
    if known is None:
        form.refuse(
            "credential_id", f"there is no credential {credential_id}", "create it, or correct it"
        )


async def _make_credential(values: dict[str, Any], services: Services) -> str | None:
    """Replaces inline values by the id of a new credential, which is returned too."""
    if "api_key" not in values:
        return None
    now = now_ms()
    credential = Credential(
        id=new_id("cred"),
        name=values["name"],
        base_url=values.pop("base_url"),
        created_at=now,
        updated_at=now,
    )
    await services.credentials.create(credential, values.pop("api_key"))
    values["credential_id"] = credential.id
    return credential.id


async def _opened(services: Services, credential_id: str) -> UpstreamCredential:
    opened = await services.credentials.decrypt(credential_id)
    return UpstreamCredential(opened.base_url, opened.api_key)


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
        views.integration(integration, state, poll, at)
        for (integration, state), poll, at in zip(found, polls, due, strict=True)
    ]
