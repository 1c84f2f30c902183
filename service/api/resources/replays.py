"""`/v1/subscriptions/{id}/replays`: events that are sent again."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, ClassVar

from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import UNSET, Meta, UnsetType

from service.api.access.audit_trail import ACTION
from service.api.access.route_guards import READERS_AND_SUBSCRIBERS, SUBSCRIBERS
from service.api.fields import samples
from service.api.fields.kinds import Moment, means, one_of
from service.api.fields.readers import Fields, given, or_none
from service.api.fields.refusals import Refusals
from service.api.fields.views import Page, Timestamp, View
from service.api.http import cursors
from service.api.http.problem_types import CONFLICT
from service.api.http.problems import PROBLEMS
from service.api.http.requests import GivenRefusals, GivenServices, IndexQuery, PathId
from service.bootstrap import Services
from service.clock import now_ms
from service.domain.delivery.event_types import EVENT_TYPE_PATTERNS, EVENT_TYPES, includes
from service.domain.delivery.subscription import Subscription
from service.domain.errors import ConflictError
from service.domain.events.event import rfc3339
from service.domain.events.identifiers import position_ms, position_order
from service.domain.replay.backfill import EVENT_TYPE as BACKFILL_TYPE
from service.domain.replay.replay import REQUESTED, Replay, ReplayProgress, Which
from service.ids import new_id
from service.storage.events.event_log import START

_EventTypes = Annotated[
    tuple[Annotated[str, one_of((*EVENT_TYPES, *EVENT_TYPE_PATTERNS))], ...],
    Meta(min_length=1, max_length=len(EVENT_TYPES)),
]


class ReplayView(View, frozen=True, kw_only=True):
    """Events that are sent to a subscription again. Each of the `queued` events ends as `delivered`
    or, after the usual retries, as `dead`, unless the replay is cancelled."""

    example: ClassVar = {
        "id": samples.REPLAY,
        "subscription_id": samples.SUBSCRIPTION,
        "which": "missing",
        "since": samples.EARLIER,
        "until": None,
        "event_types": None,
        "event_id": None,
        "state": "running",
        "scanned": 400,
        "queued": 12,
        "left_out": 0,
        "delivered": 9,
        "dead": 0,
        "reached_at": samples.AT,
        "created_at": samples.AT,
        "started_at": samples.LATER,
        "finished_at": None,
        "error": None,
    }
    id: Annotated[str, means("its id")]
    subscription_id: Annotated[str, means("the subscription that receives the events")]
    which: Annotated[str, means("all, dead, missing or backfill; event: one was redelivered")]
    since: Annotated[Timestamp | None, means("events from this time on; null: no lower limit")]
    until: Annotated[Timestamp | None, means("events before this time; null: no upper limit")]
    event_types: Annotated[
        tuple[str, ...] | None, means("only these event types; null: all that match")
    ]
    event_id: Annotated[str | None, means("the event that is redelivered")]
    state: Annotated[
        str,
        means(
            "queued: other replays run first; running; completed: everything has been "
            "delivered or is dead; cancelled; failed"
        ),
    ]
    scanned: Annotated[int, means("events read so far; of a backfill, the upstream's records")]
    queued: Annotated[int, means("the number of these events to send")]
    delivered: Annotated[int, means("the number delivered")]
    dead: Annotated[int, means("the number that became dead")]
    left_out: Annotated[
        int,
        means(
            "courses that a backfill did not send, because they have changed since the last poll, "
            "have a change that is held for review, or are quarantined"
        ),
    ]
    reached_at: Annotated[
        Timestamp | None,
        means("when the last event that was read happened; null for a backfill"),
    ]
    created_at: Annotated[Timestamp, means("when it was requested")]
    started_at: Annotated[Timestamp | None, means("when it started")]
    finished_at: Annotated[Timestamp | None, means("when it ended")]
    error: Annotated[str | None, means("why it failed, or what it left out")]

    @classmethod
    def of(cls, one: Replay, progress: ReplayProgress) -> ReplayView:
        """A replay."""
        in_log = progress.position and one.which != "backfill"
        return cls.show(
            one, progress, reached_at=position_ms(progress.position) if in_log else None
        )


class ReplayList(Page, frozen=True, kw_only=True):
    """A page of replays in the order of their requests; `next` is the cursor of the next page."""

    items: Annotated[list[ReplayView], means("the page")]


class ReplayCreate(Fields, frozen=True, kw_only=True):
    """The events that are sent again."""

    examples: ClassVar = {
        "missing": (
            "Events missed since Friday",
            {"which": "missing", "since": "2026-11-20T00:00:00Z"},
        )
    }
    which: Annotated[
        Annotated[Which, one_of(REQUESTED)],
        means(
            "all: every event that matches the subscription now; dead: dead deliveries; "
            "missing: matching events that are not pending and have no recorded delivery; "
            "backfill: every live course of the matching integrations, requested from the "
            "upstream and sent as course.created with initial true"
        ),
    ]
    since: Annotated[
        Moment | UnsetType | None,
        means(
            "events that happened at this time or later; null, or left out: all that are "
            "kept; with missing, all since the subscription began. Not for a backfill, "
            "which sends the present state"
        ),
    ] = UNSET
    until: Annotated[
        Moment | UnsetType | None,
        means(
            "events that happened before this time; null, or left out: up to now. Not for a "
            "backfill"
        ),
    ] = UNSET
    event_types: Annotated[
        _EventTypes | UnsetType | None,
        means(
            "null: all types that the subscription's filter selects; else only these. A "
            "backfill sends only course.created"
        ),
    ] = UNSET


class ReplayController(Controller):
    """Calls the replay store."""

    path = "/subscriptions/{subscription_id:str}/replays"
    tags = ["Replays"]  # noqa: RUF012 - Litestar reads it as it is

    @post(
        status_code=HTTPStatus.ACCEPTED,
        guards=[SUBSCRIBERS],
        operation_id="replayEvents",
        summary="Replay events",
        opt={ACTION: "subscription.replay_requested", PROBLEMS: (CONFLICT,)},
        response_description="The replay, queued",
    )
    async def create(
        self,
        subscription_id: PathId,
        data: JSONBody[ReplayCreate],
        refusals: GivenRefusals,
        services: GivenServices,
    ) -> Response[ReplayView]:
        """Sends past events again, with their ids and the header `coursewire-replay: true`. The
        events of a course keep their order. New events have priority over replayed events. The
        replays of a subscription run in the order of their requests. A replay does not include
        events that are detected after the request.

        A backfill requests every live course from the upstream and creates an event for each
        course, which only this subscription receives. The event log does not contain the event,
        which is kept until it is delivered or dead. Its `sequence` is that of the course's last
        event, or 1 if there is none, so the event never hides a later change.
        """
        subscription = await services.subscriptions.get(subscription_id)
        end, trimmed = await services.events.bounds()
        backfill = data.which == "backfill"
        since, until = or_none(data.since), or_none(data.until)
        if backfill:
            _check_backfill(data, refusals, subscription)
        elif since is not None and until is not None and until <= since:
            refusals.refuse("until", "is not after since", "send a later time, or leave it out")
        if not backfill:
            since = await _since(data, refusals, services, subscription, trimmed)
        refusals.settle()
        if backfill and (other := await services.replays.unfinished(subscription.id, "backfill")):
            raise ConflictError(
                f"backfill {other} of this subscription has not ended: wait for it, or cancel it"
            )
        if until is not None:
            end = min(end, f"{max(until - 1, 0)}-{2**64 - 1}", key=position_order)
        replay = Replay(
            id=new_id("rpl"),
            subscription_id=subscription.id,
            start="-" if since is None else str(since),
            end=end,
            **{**given(data), "since": since},
        )
        await services.replays.create(replay)
        return await accepted(services, replay)

    @get(
        guards=[READERS_AND_SUBSCRIBERS],
        operation_id="listReplays",
        summary="List replays",
        response_description="A page of replays",
    )
    async def index(
        self, subscription_id: PathId, params: NamedDependency[IndexQuery], services: GivenServices
    ) -> ReplayList:
        """Lists the replays in the order of their requests. If a subscription has more than 100
        replays, the oldest ones that have ended are removed."""
        subscription = await services.subscriptions.get(subscription_id)
        found, position = await services.replays.page(
            subscription.id, params.limit, params.after or None
        )
        return ReplayList(
            items=[ReplayView.of(*one) for one in found], next=cursors.write_index(position)
        )

    @get(
        "/{replay_id:str}",
        guards=[READERS_AND_SUBSCRIBERS],
        operation_id="showReplay",
        summary="Show a replay",
        response_description="The replay",
    )
    async def show(
        self, subscription_id: PathId, replay_id: PathId, services: GivenServices
    ) -> ReplayView:
        """Includes the progress."""
        return ReplayView.of(*await services.replays.get(subscription_id, replay_id))

    @delete(
        "/{replay_id:str}",
        guards=[SUBSCRIBERS],
        operation_id="cancelReplay",
        summary="Cancel a replay",
        opt={ACTION: "subscription.replay_cancelled", PROBLEMS: (CONFLICT,)},
        response_description="The replay is cancelled",
    )
    async def cancel(
        self, subscription_id: PathId, replay_id: PathId, services: GivenServices
    ) -> None:
        """Discards the events that are not delivered yet, except those that are being sent."""
        await services.replays.cancel(subscription_id, replay_id)


async def _since(
    data: ReplayCreate,
    refusals: Refusals,
    services: Services,
    subscription: Subscription,
    trimmed: str,
) -> int | None:
    """The time of the first event to send; None: all retained events.

    It refuses times whose events are no longer known, so nothing is left out silently.
    """
    since = or_none(data.since)
    kept_from = 0 if trimmed == START else position_ms(trimmed) + 1
    if since is not None and since < kept_from:
        refusals.refuse(
            "since",
            f"is before the oldest event in the log: events are kept from {rfc3339(kept_from)} on",
            "send that time or a later one, or leave it out for all that are kept",
        )
    elif since is not None and since > now_ms():
        refusals.refuse("since", "is in the future", "send a time in the past")
    elif data.which == "missing":
        begins = await services.subscriptions.begins(subscription.id)
        if since is None and begins > kept_from:
            since = begins
        reach = await services.attempts.reach(subscription.id)
        if reach is not None and (since or kept_from) < reach:
            refusals.refuse(
                "since",
                f"is before the oldest recorded attempt, at {rfc3339(reach)}, so the deliveries of "
                "earlier events are unknown",
                f"send {rfc3339(reach)} or a later time, or replay all instead of missing",
            )
    return since


def _check_backfill(data: ReplayCreate, refusals: Refusals, subscription: Subscription) -> None:
    """A backfill sends the present state, in one type of event."""
    for name in ("since", "until"):
        if getattr(data, name) not in (None, UNSET):
            refusals.refuse(
                name,
                (
                    "does not apply to a backfill, which sends the present state of every live "
                    "course"
                ),
                "leave it out, or replay all events of that time",
            )
    wanted = data.event_types
    if wanted and not includes(wanted, BACKFILL_TYPE):
        refusals.refuse(
            "event_types",
            f"leaves out {BACKFILL_TYPE}, which is all that a backfill sends",
            f"leave it out, or name {BACKFILL_TYPE}",
        )
    taken = subscription.event_types
    if taken is not None and not includes(taken, BACKFILL_TYPE):
        refusals.refuse(
            "which",
            f"is backfill, which sends {BACKFILL_TYPE}, and the subscription does not take that",
            f"add {BACKFILL_TYPE} to the event_types of the subscription",
        )


async def accepted(services: Services, replay: Replay) -> Response[ReplayView]:
    """The response to a request for a replay."""
    shown = ReplayView.of(*await services.replays.get(replay.subscription_id, replay.id))
    location = f"/v1/subscriptions/{replay.subscription_id}/replays/{replay.id}"
    return Response(shown, status_code=HTTPStatus.ACCEPTED, headers={"location": location})
