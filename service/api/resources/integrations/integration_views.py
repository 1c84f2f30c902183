"""Integrations in responses."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec

from service.api.fields import samples
from service.api.fields.kinds import means
from service.api.fields.views import Page, Timestamp, View
from service.api.resources.integrations import upstream_check
from service.api.resources.integrations.integration_fields import (
    FIRST_REPORT,
    IGNORED_PATHS,
    DeltaInterval,
    ExternalId,
    FullInterval,
    Name,
    OwnLabels,
    Paused,
    TrackRemoteData,
    UpstreamId,
)
from service.api.resources.integrations.polls import PollView
from service.domain.polling.integration import (
    Integration,
    PollingState,
    PollRecord,
    Problem,
    state_of,
)
from service.domain.polling.notices import notices


class IntegrationProblem(View, frozen=True, kw_only=True):
    """The failure of an integration's polls. If `attention` is true, an operator must act.
    Otherwise the next attempts may succeed."""

    example: ClassVar = {
        "code": "PLATFORM.INTEGRATION_NOT_FOUND",
        "message": "the upstream does not know the integration",
        "remedy": "correct upstream_id, or connect the learning system again",
        "since": samples.AT,
        "attention": True,
        "status": 404,
        "log_url": None,
    }
    code: Annotated[str, means("the upstream's error code, or the name of what went wrong")]
    message: Annotated[str, means("a description of the failure")]
    remedy: Annotated[str, means("the remedy")]
    since: Annotated[Timestamp, means("when the first of the consecutive failures occurred")]
    attention: Annotated[bool, means("whether an operator must act")]
    status: Annotated[int | None, means("the upstream's HTTP status; null: no response")]
    log_url: Annotated[str | None, means("the upstream's own page about the request")]

    @classmethod
    def of(cls, problem: Problem) -> IntegrationProblem:
        """The failure of polls."""
        code, status, elsewhere = problem.code, problem.status, problem.elsewhere
        return cls.show(problem, remedy=upstream_check.remedy(code, status, elsewhere=elsewhere))


class IntegrationNotice(View, frozen=True, kw_only=True):
    """A problem that does not stop the polls of an integration, but needs attention."""

    example: ClassVar = {
        "code": "flapping_path",
        "message": "`revisions.remote_url` changed again and again in mostly the same courses: in "
        "3 polls in a row, the last of which changed it in 50 courses. If the change carries no "
        "meaning, for example a signed URL, add the path to ignore_paths.",
        "since": samples.EARLIER,
    }
    code: Annotated[
        str,
        means(
            "unconfirmed_changes, clock_skew, cached_answers, flapping_path or records_without_id"
        ),
    ]
    message: Annotated[str, means("a description of the problem and its remedy")]
    since: Annotated[Timestamp, means("when the problem started")]


class IntegrationView(View, frozen=True, kw_only=True):
    """An integration: its registration and its present state."""

    tagged: ClassVar = True
    example: ClassVar = {
        "id": samples.INTEGRATION,
        "name": "Workday of Acme",
        "upstream_id": samples.UPSTREAM,
        "credential_id": samples.CREDENTIAL,
        "external_id": "tenant-42",
        "labels": {"region": "eu"},
        "delta_interval_seconds": 60,
        "full_interval_seconds": 21600,
        "baseline": "silent",
        "ignore_paths": [],
        "track_remote_data": False,
        "guards": {
            "deleted_count": 10,
            "deleted_share": 0.15,
            "deleted_share_max": 0.5,
            "changed_count": 20,
            "changed_share": 0.5,
        },
        "paused": False,
        "created_at": samples.EARLIER,
        "updated_at": samples.EARLIER,
        "state": "active",
        "epoch": "ep_3t5z6w1y2h8k2m4x7q9v",
        "held": 0,
        "course_count": 600,
        "quarantined": 0,
        "clock_skew_seconds": None,
        "last_poll": PollView.example,
        "next_poll_at": "2026-11-23T09:31:00.000Z",
        "error": None,
        "notices": [],
    }
    id: Annotated[str, means("its id")]
    name: Name
    upstream_id: UpstreamId
    credential_id: Annotated[str, means("the credential it uses")]
    external_id: ExternalId
    labels: OwnLabels
    delta_interval_seconds: DeltaInterval
    full_interval_seconds: FullInterval
    baseline: Annotated[str, FIRST_REPORT]
    ignore_paths: Annotated[tuple[str, ...], IGNORED_PATHS]
    track_remote_data: TrackRemoteData
    guards: Annotated[
        dict[str, float],
        means("the limits above which the changes of one poll are held for review"),
    ]
    paused: Paused
    created_at: Annotated[Timestamp, means("when it was registered")]
    updated_at: Annotated[Timestamp, means("when it was last changed")]
    state: Annotated[
        str,
        means(
            "the first that applies: paused; error: an operator must act, see `error`; "
            "review: changes are held for a decision; pending: its first full poll is not "
            "complete; active"
        ),
    ]
    epoch: Annotated[str, means("the id of its catalogue; a different upstream starts a new epoch")]
    held: Annotated[int, means("the changes that are held until a decision is carried out")]
    course_count: Annotated[int, means("the live courses")]
    quarantined: Annotated[int, means("the quarantined courses")]
    clock_skew_seconds: Annotated[
        float | None,
        means(
            "how far the upstream's clock is ahead of the service's clock; null: within 30 seconds"
        ),
    ]
    last_poll: Annotated[PollView | None, means("the latest poll that has started; null: none")]
    next_poll_at: Annotated[
        Timestamp | None,
        means("when the next poll is due; null: a poll is running, or polling is paused"),
    ]
    error: Annotated[
        IntegrationProblem | None, means("why polls fail, or why an operator must act")
    ]
    notices: Annotated[
        list[IntegrationNotice], means("problems that do not stop polls but need attention")
    ]

    @classmethod
    def of(
        cls,
        one: Integration,
        state: PollingState,
        last_poll: PollRecord | None,
        next_poll_at: int | None,
    ) -> IntegrationView:
        """An integration."""
        return cls.show(
            one,
            state,
            guards=msgspec.structs.asdict(one.guards),
            state=state_of(one, state),
            clock_skew_seconds=None if state.clock_skew_ms is None else state.clock_skew_ms / 1000,
            last_poll=None if last_poll is None else PollView.of(last_poll),
            next_poll_at=next_poll_at,
            error=None if state.problem is None else IntegrationProblem.of(state.problem),
            notices=[IntegrationNotice.show(found) for found in notices(one, state)],
        )


class IntegrationList(Page, frozen=True, kw_only=True):
    """A page of integrations in the order of creation; `next` is the cursor of the next page."""

    items: Annotated[list[IntegrationView], means("the page")]
