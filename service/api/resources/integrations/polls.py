"""`/v1/integrations/{id}/polls`: recent polls, and requests for polls."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, ClassVar

from litestar import Controller, Response, get, post
from litestar.params import JSONBody

from service.api.access.audit_trail import ACTION
from service.api.access.route_guards import ADMINS, READERS
from service.api.fields import samples
from service.api.fields.kinds import means
from service.api.fields.readers import Fields
from service.api.fields.views import Page, Timestamp, View
from service.api.http.problem_types import CONFLICT
from service.api.http.problems import PROBLEMS
from service.api.http.requests import GivenServices, PathId
from service.clock import now_ms
from service.domain.polling.integration import PollKind, PollRecord


class PollView(View, frozen=True, kw_only=True):
    """One poll."""

    example: ClassVar = {
        "id": samples.POLL,
        "kind": "delta",
        "state": "completed",
        "requested_at": None,
        "started_at": samples.AT,
        "finished_at": samples.LATER,
        "duration_seconds": 1.25,
        "pages": 1,
        "records": 12,
        "verdicts": {"unchanged": 9, "updated": 3},
        "changes": 3,
        "error": None,
    }
    id: Annotated[str, means("its id")]
    kind: Annotated[str, means("delta: changed courses; full: all courses")]
    state: Annotated[str, means("queued, running, completed or failed")]
    requested_at: Annotated[
        Timestamp | None, means("when it was requested; null: the schedule started it")
    ]
    started_at: Annotated[Timestamp | None, means("when it started")]
    finished_at: Annotated[Timestamp | None, means("when it ended")]
    duration_seconds: Annotated[float | None, means("the time from start to end")]
    pages: Annotated[int, means("pages read so far")]
    records: Annotated[int, means("records read so far")]
    verdicts: Annotated[dict[str, int], means("the number of records and absences by verdict")]
    changes: Annotated[int, means("the events that it published")]
    error: Annotated[
        str | None,
        means(
            "of a failed poll: why it failed; of a running poll: the failure of the last attempt; "
            "of a completed poll: notes, for example about held changes; null: none"
        ),
    ]

    @classmethod
    def of(cls, one: PollRecord) -> PollView:
        """A poll."""
        duration = None
        if one.started_at is not None and one.finished_at is not None:
            duration = (one.finished_at - one.started_at) / 1000
        return cls.show(one, duration_seconds=duration)


class PollList(Page, frozen=True, kw_only=True):
    """The stored polls, the latest first."""

    items: Annotated[list[PollView], means("the page")]


class PollRequest(Fields, frozen=True, kw_only=True):
    """The requested poll."""

    examples: ClassVar = {"full": ("Request all courses", {"kind": "full"})}
    kind: Annotated[PollKind, means("delta: changed courses; full: all courses")] = "delta"


_DELTA = PollRequest()  # for an empty body


class PollController(Controller):
    """Calls the integration store."""

    path = "/integrations/{integration_id:str}/polls"
    tags = ["Integrations"]  # noqa: RUF012 - Litestar reads it as it is

    @post(
        status_code=HTTPStatus.ACCEPTED,
        operation_id="requestPoll",
        guards=[ADMINS],
        summary="Poll an integration now",
        opt={ACTION: "integration.poll_requested", PROBLEMS: (CONFLICT,)},
        response_description="The queued poll",
    )
    async def request_poll(
        self, integration_id: PathId, services: GivenServices, data: JSONBody[PollRequest] = _DELTA
    ) -> Response[PollView]:
        """Queues a poll and returns it.

        A request joins a queued poll, or a running poll of the same kind. A running full poll also
        answers a request for a delta. A queued delta becomes a full poll if a full poll is
        requested. If a request joins a running poll, another poll follows at once to cover the
        pages that were already read.
        """
        poll = await services.integrations.request_poll(integration_id, data.kind, now_ms())
        return Response(
            PollView.of(poll),
            headers={"location": f"/v1/integrations/{integration_id}/polls/{poll.id}"},
        )

    @get(
        guards=[READERS],
        operation_id="listPolls",
        summary="List recent polls",
        response_description="The polls",
    )
    async def polls(self, integration_id: PathId, services: GivenServices) -> PollList:
        """Coursewire keeps the latest 50 polls. The latest poll comes first."""
        found = await services.integrations.list_polls(integration_id)
        return PollList(items=[PollView.of(poll) for poll in found], next=None)

    @get(
        "/{poll_id:str}",
        guards=[READERS],
        operation_id="showPoll",
        summary="Show a poll",
        response_description="The poll",
    )
    async def poll(
        self, integration_id: PathId, poll_id: PathId, services: GivenServices
    ) -> PollView:
        """Returns the results so far."""
        return PollView.of(await services.integrations.get_poll(integration_id, poll_id))
