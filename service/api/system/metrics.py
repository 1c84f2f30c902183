"""`/metrics`: the Prometheus exposition."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, get
from litestar.di import NamedDependency
from msgspec import UNSET, UnsetType

from service.api.access.authentication import PROTECTED
from service.api.access.route_guards import METRICS_READERS
from service.api.fields.kinds import Several, means
from service.api.fields.readers import Fields
from service.api.http.request_metrics import Traffic
from service.api.http.requests import AnyRequest, GivenServices
from service.api.schema.document import SECURITY
from service.domain.observability.metrics import DETAIL_MOST, Detail


class MetricsQuery(Fields, frozen=True, kw_only=True):
    """The details that the exposition includes."""

    detail: Annotated[
        Several[Detail] | UnsetType,
        means(
            "also returns metrics of single resources of these kinds, of each kind the first "
            f"{DETAIL_MOST:,} registered; separated by commas or given repeatedly"
        ),
    ] = UNSET


@get(
    "/metrics",
    guards=[METRICS_READERS],
    operation_id="metrics",
    summary="Metrics for Prometheus",
    response_description="The exposition",
    tags=["System"],
    middleware=PROTECTED,
    security=SECURITY,
    media_type="text/plain",
)
async def metrics(
    params: NamedDependency[MetricsQuery], request: AnyRequest, services: GivenServices
) -> Response[bytes]:
    """Every API process returns the metrics of the whole system. Only `coursewire_redis_up`,
    `coursewire_build_info`, `coursewire_api_*` and `process_*` describe the process that answers.
    Tokens of any scope except `subscriber` are accepted."""
    traffic: Traffic = request.app.state.traffic
    exposition, content_type = await services.metrics.render(
        request.headers.get("accept", ""), traffic.collect(), params.detail or ()
    )
    # As a header, because the framework would add a second charset to a media type.
    return Response(exposition, headers={"content-type": content_type})
