"""`/v1/history`: past metrics by the minute and the hour, ready to plot."""

from __future__ import annotations

import asyncio
from typing import Annotated, ClassVar, Literal

from litestar import get
from litestar.di import NamedDependency
from msgspec import UNSET, UnsetType

from service.api.access.route_guards import READERS
from service.api.fields import samples
from service.api.fields.kinds import Moment, Several, means, one_of
from service.api.fields.readers import Fields
from service.api.fields.refusals import FieldError, InvalidRequestError
from service.api.fields.views import Timestamp, View
from service.api.http.requests import GivenServices
from service.clock import now_ms
from service.domain.events.event import rfc3339
from service.domain.observability.history import (
    FAMILIES,
    HOURS,
    MINUTES,
    RESOLUTIONS,
    Resolution,
    SeriesKind,
    series_at,
)

SETTLED_MS = 5_000  # the usual time from the end of a period until it is recorded
_SHOWN = {MINUTES: 60, HOURS: 24 * 7}  # default number of periods


class SeriesView(View, frozen=True, kw_only=True):
    """The values of one metric with one set of labels."""

    example: ClassVar = {
        "name": "events_total",
        "labels": {"type": "course.updated"},
        "kind": "counter",
        "unit": "count",
        "values": [3, 0, None],
    }
    name: Annotated[str, means("the metric, named as in `/metrics` but without `coursewire_`")]
    labels: Annotated[dict[str, str], means("its labels")]
    kind: Annotated[
        SeriesKind,
        means(
            "counter: its increase during the period; gauge: its value at the end of the period; "
            "quantile: an estimate over all observations during the period"
        ),
    ]
    unit: Annotated[str, means("count, seconds or bytes")]
    values: Annotated[
        list[float | None],
        means("one for each of `times`; null: unknown, or a quantile without observations"),
    ]


class HistoryView(View, frozen=True, kw_only=True):
    """Series over the same points in time."""

    example: ClassVar = {
        "resolution": "minute",
        "since": "2026-11-23T09:27:00.000Z",
        "until": samples.AT,
        "times": [1795426080, 1795426140, 1795426200],
        "minutes": [1, 1, 0],
        "series": [SeriesView.example],
    }
    resolution: Annotated[Literal["minute", "hour"], means("the length of each period")]
    since: Annotated[Timestamp, means("the first period begins then")]
    until: Annotated[Timestamp, means("the last period ends then")]
    times: Annotated[list[int], means("when each period ends, in seconds since 1970")]
    minutes: Annotated[
        list[int],
        means(
            "how many minutes of each period its counters and quantiles cover: 60 for a complete "
            "hour, 1 for a minute, 0 for a gap"
        ),
    ]
    series: Annotated[list[SeriesView], means("the series")]


class HistoryQuery(Fields, frozen=True, kw_only=True):
    """The requested part of the history."""

    resolution: Annotated[
        Literal["minute", "hour"],
        means("minute: kept for 48 hours; hour: kept for 60 days; minute if left out"),
    ] = "minute"
    since: Annotated[
        Moment | UnsetType,
        means("the start; if left out, an hour before `until`, or a week with resolution=hour"),
    ] = UNSET
    until: Annotated[Moment | UnsetType, means("the end; now, if left out")] = UNSET
    series: Annotated[
        Several[Annotated[str, one_of(FAMILIES)]] | UnsetType,
        means("only these metrics, separated by commas or given repeatedly; all if left out"),
    ] = UNSET


_FAMILIES = "\n".join(
    f"| `{one.name}` | {', '.join(f'`{label}`' for label in one.labels)} | {one.kind} | "
    f"{one.unit} | {one.help} |"
    for one in FAMILIES.values()
)


@get(
    "/history",
    operation_id="showHistory",
    summary="Show the history of metrics",
    response_description="The series",
    description=f"""A sample is taken at the end of every minute. Minutes are kept for 48 hours, and
the hours that they add up to for 60 days. A value is null where it is unknown: no sample was taken,
Redis was restarted, or Redis lost data. The first period contains `since`. The last period is the
latest that has ended by `until`.

| series | labels | kind | unit | meaning |
|---|---|---|---|---|
{_FAMILIES}""",
    tags=["System"],
    guards=[READERS],
)
async def show_history(
    params: NamedDependency[HistoryQuery], services: GivenServices
) -> HistoryView:
    """The periods from `since` to `until`."""
    resolution = RESOLUTIONS[params.resolution]
    period_ms = services.history.period_ms(resolution)
    settled = now_ms() - SETTLED_MS
    until = (settled if params.until is UNSET else min(params.until, settled)) // period_ms
    since = until - _SHOWN[resolution]
    if params.since is not UNSET:
        since = params.since // period_ms
        until = max(since, until)
        _check_range(params, until - since, resolution)
    times = [period * period_ms for period in range(since + 1, until + 1)]
    periods = await services.history.read(resolution, since * period_ms, until * period_ms)
    covered = {period.end: period.minutes for period in periods}
    names = FAMILIES if params.series is UNSET else params.series
    return HistoryView(
        resolution=resolution.name,
        since=rfc3339(since * period_ms),
        until=rfc3339(until * period_ms),
        times=[time // 1000 for time in times],
        minutes=[covered.get(time, 0) for time in times],
        series=[
            SeriesView.show(one)
            for one in await asyncio.to_thread(series_at, times, periods, names)
        ],
    )


def _check_range(params: HistoryQuery, periods: int, resolution: Resolution) -> None:
    """Raises InvalidRequestError unless `since` is before `until`, and near enough to it."""
    if params.until is not UNSET and params.since is not UNSET and params.since >= params.until:
        wrong = FieldError(
            "since", "is not before until", "send an earlier since, or a later until"
        )
    elif periods > resolution.kept:
        wrong = FieldError(
            "since",
            f"is {periods:,} {resolution.name}s before the end, and {resolution.kept:,} are kept",
            "send a later since, or an earlier until"
            + (", or resolution=hour" if resolution is MINUTES else ""),
        )
    else:
        return
    raise InvalidRequestError([wrong])
