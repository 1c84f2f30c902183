"""`/v1/subscriptions/{id}/statistics`: the outcomes of the latest attempts."""

from __future__ import annotations

from typing import Annotated, ClassVar

from litestar import get
from litestar.di import NamedDependency

from service.api.access.route_guards import READERS_AND_SUBSCRIBERS
from service.api.fields import samples
from service.api.fields.kinds import means, number_in_text
from service.api.fields.readers import Fields
from service.api.fields.views import Timestamp, View
from service.api.http.problem_types import NOT_FOUND
from service.api.http.problems import PROBLEMS
from service.api.http.requests import GivenServices, PathId
from service.domain.delivery.attempt_statistics import SLICES, summarize
from service.storage.delivery.recent_attempts import MOST, read_recent_attempts


class AttemptSliceView(View, frozen=True, kw_only=True):
    """Consecutive attempts."""

    example: ClassVar = {
        "at": samples.AT,
        "attempts": 34,
        "delivered": 33,
        "p50_ms": 48,
        "p95_ms": 210,
    }
    at: Annotated[Timestamp, means("when the first of them began")]
    attempts: Annotated[int, means("how many there are")]
    delivered: Annotated[int, means("how many succeeded")]
    p50_ms: Annotated[int, means("the median duration, in milliseconds")]
    p95_ms: Annotated[int, means("the 95th percentile of the duration, in milliseconds")]


class SubscriptionStatistics(View, frozen=True, kw_only=True):
    """The outcomes of the latest attempts of a subscription."""

    example: ClassVar = {
        "since": samples.AT,
        "attempts": 34,
        "success_rate": 0.97,
        "p50_ms": 48,
        "p95_ms": 210,
        "outcomes": {"delivered": 33, "timeout": 1},
        "slices": [AttemptSliceView.example],
    }
    since: Annotated[Timestamp | None, means("when the first of these attempts began")]
    attempts: Annotated[
        int, means("the number of attempts, without those whose `counted` is false")
    ]
    success_rate: Annotated[
        float | None, means("the share of attempts that succeeded, 0 to 1; null: no attempts")
    ]
    p50_ms: Annotated[int | None, means("the median duration, in milliseconds")]
    p95_ms: Annotated[int | None, means("the 95th percentile of the duration, in milliseconds")]
    outcomes: Annotated[dict[str, int], means("the number of attempts by outcome")]
    slices: Annotated[
        list[AttemptSliceView],
        means(f"statistics of at most {SLICES} groups of consecutive attempts, the oldest first"),
    ]


class StatisticsQuery(Fields, frozen=True, kw_only=True):
    """The number of attempts to include."""

    attempts: Annotated[
        int,
        number_in_text(1, MOST),
        means(f"how many of the latest attempts are counted; {MOST:,} if left out"),
    ] = MOST


@get(
    "/subscriptions/{subscription_id:str}/statistics",
    tags=["Subscriptions"],
    guards=[READERS_AND_SUBSCRIBERS],
    operation_id="showSubscriptionStatistics",
    summary="Show statistics of attempts",
    response_description="The statistics",
    opt={PROBLEMS: (NOT_FOUND,)},
)
async def show_statistics(
    subscription_id: PathId, params: NamedDependency[StatisticsQuery], services: GivenServices
) -> SubscriptionStatistics:
    """Returns the success rate and the durations of the latest recorded attempts."""
    subscription = await services.subscriptions.get(subscription_id)
    found = summarize(await read_recent_attempts(services.redis, subscription.id, params.attempts))
    return SubscriptionStatistics.show(
        found,
        outcomes=dict(found.outcomes),
        slices=[AttemptSliceView.show(one) for one in found.slices],
    )
