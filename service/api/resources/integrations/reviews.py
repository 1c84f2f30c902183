"""`/v1/integrations/{id}/review`: changes that are held for a decision."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated, ClassVar, Self

import msgspec
from litestar import Controller, Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET, Meta, UnsetType

from service.api.access.audit_trail import ACTION
from service.api.access.authentication import GivenActor
from service.api.access.route_guards import ADMINS, READERS
from service.api.fields import samples
from service.api.fields.kinds import means, number_in_text, text
from service.api.fields.readers import Fields
from service.api.fields.views import Page, Timestamp, View, moment
from service.api.http import cursors
from service.api.http.etags import IF_MATCH, read_tags
from service.api.http.problem_types import CONFLICT, PRECONDITION_REQUIRED
from service.api.http.problems import PROBLEMS
from service.api.http.requests import GivenServices, PathId, ScanQuery
from service.api.resources.integrations.upstream_check import CheckResult
from service.api.resources.integrations.upstream_preview import (
    MAX_PREVIEWED,
    Preview,
    UpstreamCourse,
    preview,
)
from service.bootstrap import Services
from service.domain.access.grants import Scope
from service.domain.errors import ForbiddenError, PreconditionRequiredError, StaleReviewError
from service.domain.polling.integration import Decision, Integration
from service.domain.polling.triage import Held
from service.domain.review.guards import Exceeded
from service.storage.polling.reviews import HeldChange

_VERSION = re.compile(r"[0-9]{1,16}")
_UNDER_WAY = {"publish": "publishing", "accept_silently": "accepting_silently"}


class ExceededLimit(View, frozen=True, kw_only=True):
    """A limit of the integration's `guards` that the held changes exceeded when a poll last checked
    them."""

    example: ClassVar = {
        "limit": "deleted_share",
        "allowed": 0.15,
        "share": 0.2,
        "count": 120,
        "live": 600,
        "path": None,
    }
    limit: Annotated[str, means("deleted_share, deleted_share_max or changed_share")]
    allowed: Annotated[float, means("the share of the live courses that it allows")]
    share: Annotated[float, means("the share that was found")]
    count: Annotated[int, means("the number of affected courses, including those held before")]
    live: Annotated[int, means("how many live courses there were")]
    path: Annotated[str | None, means("of changed_share: the path that changed")]

    @classmethod
    def of(cls, one: Exceeded) -> ExceededLimit:
        """A limit."""
        return cls.show(one, share=round(one.count / max(one.live, 1), 4))


class HeldChangeView(View, frozen=True, kw_only=True):
    """A held change. Until a decision, Coursewire publishes nothing and records nothing of it."""

    example: ClassVar = {
        "course_id": samples.COURSE,
        "remote_id": "32",
        "kind": "deleted",
        "evidence": "tombstone",
        "changed": [],
        "upstream": None,
    }
    course_id: Annotated[str, means("the course's id at the upstream")]
    remote_id: Annotated[str | None, means("the course's id in the learning system")]
    kind: Annotated[str, means("deleted or updated")]
    evidence: Annotated[
        str | None,
        means("of a deletion: tombstone or absence; null for an update"),
    ]
    changed: Annotated[tuple[str, ...], means("of an update: the paths that are held")]
    upstream: Annotated[
        UpstreamCourse | None, means("the current state at the upstream; null: not previewed")
    ]

    @classmethod
    def of(cls, one: HeldChange, remote_id: str | None, now: UpstreamCourse | None) -> Self:
        """A held change."""
        is_update = one.withheld.kind == "update"
        return cls(
            course_id=one.id,
            remote_id=remote_id,
            kind="updated" if is_update else "deleted",
            evidence=None if is_update else one.withheld.kind,
            changed=tuple(one.withheld.paths),
            upstream=now,
        )


class ReviewView(Page, frozen=True, kw_only=True):
    """Changes of an integration that exceed its limits and are held. `deleted`
    and `changed` count all of them, `items` is a page of them in no order."""

    tagged: ClassVar = True
    example: ClassVar = {
        "integration_id": samples.INTEGRATION,
        "state": "open",
        "since": samples.AT,
        "decision": None,
        "subscriptions_not_informed": None,
        "deleted": 1,
        "changed": {},
        "exceeded": [ExceededLimit.example],
        "preview": None,
        "items": [HeldChangeView.example],
        "next": None,
    }
    integration_id: Annotated[str, means("the integration")]
    state: Annotated[
        str,
        means(
            "open: a decision is needed; publishing or accepting_silently: the last "
            "decision is being carried out; none"
        ),
    ]
    since: Annotated[Timestamp | None, means("when the first change was held")]
    decision: Annotated[
        Decision | None, means("the decision that was just taken or is being carried out")
    ]
    subscriptions_not_informed: Annotated[
        int | None,
        means(
            "in the response to accept_silently: how many subscriptions match the accepted "
            "changes and receive no event for them"
        ),
    ]
    deleted: Annotated[int, means("how many courses appear to be deleted")]
    changed: Annotated[dict[str, int], means("how many courses changed, by path")]
    exceeded: Annotated[
        list[ExceededLimit],
        means(
            "the exceeded limits; empty: all held changes are deletions that could not be "
            "confirmed when they were published"
        ),
    ]
    preview: Annotated[
        CheckResult | None,
        means("the result of the preview request; null: no preview was requested"),
    ]
    items: Annotated[list[HeldChangeView], means("the page")]


class ReviewQuery(ScanQuery, frozen=True, kw_only=True):
    """The page, and the number of items to preview."""

    preview: Annotated[
        Annotated[int, number_in_text(1, MAX_PREVIEWED)] | UnsetType,
        means(
            "the number of items of the page whose current state is requested from the "
            "upstream, in one request within its rate limit; needs the scope admin"
        ),
    ] = UNSET


class ReviewDecision(Fields, frozen=True, kw_only=True):
    """The decision."""

    examples: ClassVar = {
        "publish": ("Send the events", {"decision": "publish"}),
        "accept_silently": ("Send no event", {"decision": "accept_silently"}),
    }
    decision: Annotated[
        Decision,
        means(
            "publish: request the courses again and send events for their current state; "
            "accept_silently: record the held changes and send no event"
        ),
    ]


class ReviewCondition(Fields, frozen=True, kw_only=True):
    """The changes that the decision applies to."""

    tags: Annotated[
        Annotated[str, text(100), Meta(extra={"read": read_tags})] | UnsetType,
        means("the ETag of the review that the decision is based on"),
    ] = msgspec.field(name=IF_MATCH)


class ReviewController(Controller):
    """Calls the review store."""

    path = "/integrations/{integration_id:str}/review"
    tags = ["Integrations"]  # noqa: RUF012 - Litestar reads it as it is

    @get(
        guards=[READERS],
        operation_id="showReview",
        summary="Show the held changes",
        response_description="A page of the review, with its ETag",
    )
    async def show(
        self,
        integration_id: PathId,
        params: NamedDependency[ReviewQuery],
        actor: GivenActor,
        services: GivenServices,
    ) -> Response[ReviewView]:
        """Lists the held changes: deletions that exceed a limit in `guards` or could not be
        confirmed, and changes of a path that exceed a limit. The ETag identifies all held changes,
        not only those on this page."""
        if params.preview and actor.scope is not Scope.ADMIN:
            raise ForbiddenError(
                f"the scope `{actor.scope}` does not cover `preview`, which sends a request to the "
                "upstream"
            )
        return await _shown(services, integration_id, params)

    @post(
        status_code=HTTPStatus.ACCEPTED,
        guards=[ADMINS],
        operation_id="decideReview",
        summary="Publish or silently accept the held changes",
        opt={ACTION: "integration.review_decided", PROBLEMS: (CONFLICT, PRECONDITION_REQUIRED)},
        response_description="The review, with the decision that the next poll applies",
    )
    async def decide(
        self,
        integration_id: PathId,
        data: JSONBody[ReviewDecision],
        sent_headers: NamedDependency[ReviewCondition],
        services: GivenServices,
    ) -> Response[ReviewView]:
        """Decides on exactly the changes that `If-Match` identifies. The next poll applies the
        decision. It starts at once, unless the integration is paused or another poll is running. It
        holds a deletion again if it cannot confirm the deletion."""
        integration, state = await services.integrations.get(integration_id)
        if sent_headers.tags is UNSET:
            raise PreconditionRequiredError(
                f"send the ETag of GET /v1/integrations/{integration_id}/review as If-Match, so "
                "that the decision applies to the changes that were shown"
            )
        shown_versions = [
            int(tag) for tag in sent_headers.tags.split(",") if _VERSION.fullmatch(tag)
        ]
        if not shown_versions:
            raise StaleReviewError("If-Match does not contain an ETag of this review")
        current = await services.reviews.get(integration_id, state.epoch)
        version = current.version if current.version in shown_versions else shown_versions[0]
        matching = await _matching_subscriptions(services, integration, current.held)
        await services.reviews.decide(integration_id, state.epoch, version, data.decision)
        shown = await _shown(
            services,
            integration_id,
            ReviewQuery(),
            decision=data.decision,
            not_informed=matching if data.decision == "accept_silently" else None,
        )
        shown.status_code = HTTPStatus.ACCEPTED
        return shown


async def _matching_subscriptions(services: Services, integration: Integration, held: Held) -> int:
    matcher = await services.matchers.current(fresh=True)
    found = (
        matcher.outboxes(
            event_type=event_type,
            integration_id=integration.id,
            labels=integration.labels,
            changed=held.changed,
        )
        for event_type, count in (
            ("course.deleted", held.deleted),
            ("course.updated", len(held.changed)),
        )
        if count
    )
    return len({outbox.subscription_id for outboxes in found for outbox in outboxes})


async def _shown(
    services: Services,
    integration_id: str,
    params: ReviewQuery,
    *,
    decision: Decision | None = None,
    not_informed: int | None = None,
) -> Response[ReviewView]:
    integration, state = await services.integrations.get(integration_id)
    found = await services.reviews.get(integration_id, state.epoch)
    changes, following = await services.reviews.page(
        integration_id, state.epoch, params.limit, params.after or None
    )
    course_ids = [one.id for one in changes]
    known = await services.catalogue.live_among(integration_id, state.epoch, course_ids)
    previewed = (
        await preview(services, integration, course_ids[: params.preview])
        if params.preview
        else Preview({}, None)
    )
    being_done = _UNDER_WAY.get(state.decision or "", "none")
    return Response(
        ReviewView(
            integration_id=integration_id,
            state=being_done if found.since is None else "open",
            since=moment(found.since),
            decision=decision or state.decision,
            subscriptions_not_informed=not_informed,
            deleted=found.held.deleted,
            changed=dict(found.held.changed),
            exceeded=[ExceededLimit.of(one) for one in found.exceeded],
            preview=previewed.outcome,
            items=[
                HeldChangeView.of(
                    one,
                    known[one.id].remote_id if one.id in known else None,
                    previewed.courses.get(one.id),
                )
                for one in changes
            ],
            next=cursors.write_scan(following),
        ),
        headers={"etag": f'"{found.version}"'},
    )
