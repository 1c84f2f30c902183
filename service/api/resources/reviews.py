"""`/v1/integrations/{id}/review`: changes that are held until somebody decides on them."""

from __future__ import annotations

import re
from http import HTTPStatus

from litestar import Controller, Response, get, post

from service.api.access.audit_trail import ACTION
from service.api.http import cursors
from service.api.http.etags import given_tags
from service.api.http.problems import (
    CONFLICT,
    PRECONDITION_FAILED,
    PRECONDITION_REQUIRED,
)
from service.api.http.requests import (
    LIMIT,
    PAGE_SIZE,
    AnyRequest,
    Document,
    GivenServices,
    PathId,
    after,
    query_form,
)
from service.api.schema import views
from service.api.schema.field_types import one_of, text
from service.api.schema.form import Field, Form, Table
from service.api.schema.operations import problems, reads
from service.api.schema.schemas import ReviewView
from service.bootstrap import Services
from service.domain.errors import PreconditionRequiredError, StaleReviewError
from service.storage.redis.scans import ScanCursor

DECISION: Table = {
    "decision": Field(
        parser=one_of(("apply", "discard")),
        meaning="apply: ask for the courses again and report what they show; discard: take what "
        "was shown for known and report nothing",
        required=True,
    )
}
PAGE: Table = {"limit": LIMIT, "after": after(cursors.read_scan)}
PRECONDITION: Table = {
    "If-Match": Field(
        parser=text(100), meaning="the ETag of the review as it was shown", required=True
    )
}
_VERSION = re.compile(r"[0-9]{1,16}")


class ReviewController(Controller):
    """Thin over the review store."""

    path = "/integrations/{integration_id:str}/review"
    tags = ["Integrations"]  # noqa: RUF012 - Litestar reads it as it is

    @get(
        summary="Show what is held for review",
        response_description="A page of the review, with its ETag",
        operation_class=reads(query=PAGE),
        responses=problems(
            HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY
        ),
    )
    async def show(
        self, integration_id: PathId, request: AnyRequest, services: GivenServices
    ) -> Response[ReviewView]:
        """More deletions than the guards allow, or changes of one path in most courses, are held
        with everything as it was. The ETag names the whole set, whatever the page."""
        query = query_form(request, PAGE).accept()
        return await _shown(
            services, integration_id, query.get("limit", PAGE_SIZE), query.get("after")
        )

    @post(
        status_code=HTTPStatus.ACCEPTED,
        summary="Decide on what is held",
        opt={ACTION: "integration.review_decided"},
        response_description="The decision is taken and will be carried out",
        operation_class=reads(body=DECISION, required=("decision",), headers=PRECONDITION),
        responses=problems(
            HTTPStatus.BAD_REQUEST,
            HTTPStatus.UNAUTHORIZED,
            HTTPStatus.NOT_FOUND,
            CONFLICT,
            PRECONDITION_FAILED,
            PRECONDITION_REQUIRED,
            HTTPStatus.UNPROCESSABLE_ENTITY,
        ),
    )
    async def decide(
        self,
        integration_id: PathId,
        document: Document,
        request: AnyRequest,
        services: GivenServices,
    ) -> Response[ReviewView]:
        """On exactly the set that was shown, which `If-Match` names. It is carried out by the
        integration's next turn, which is due at once; a deletion by absence that cannot be
        confirmed then is held again."""
        decision = Form(document, DECISION, required=("decision",)).accept()["decision"]
        _, state = await services.integrations.get(integration_id)
        tags = given_tags(request)
        if tags is None:
            raise PreconditionRequiredError(
                f"send the ETag of GET /v1/integrations/{integration_id}/review as If-Match, so "
                "that the decision is on what was shown"
            )
        shown_versions = [int(tag) for tag in tags if _VERSION.fullmatch(tag)]
        if not shown_versions:
            raise StaleReviewError("If-Match holds no ETag of this review")
        current = (await services.reviews.get(integration_id, state.epoch)).version
        version = current if current in shown_versions else shown_versions[0]
        await services.reviews.decide(integration_id, state.epoch, version, decision)
        shown = await _shown(services, integration_id, PAGE_SIZE, None)
        shown.status_code = HTTPStatus.ACCEPTED
        return shown


async def _shown(
    services: Services, integration_id: str, limit: int, place: ScanCursor | None
) -> Response[ReviewView]:
    _, state = await services.integrations.get(integration_id)
    found = await services.reviews.get(integration_id, state.epoch)
    changes, following = await services.reviews.page(integration_id, state.epoch, limit, place)
    return Response(
        views.review(integration_id, state, found, changes, cursors.write_scan(following)),
        headers={"etag": f'"{found.version}"'},
    )
