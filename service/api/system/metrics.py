"""`/metrics`: the Prometheus exposition."""

from __future__ import annotations

from http import HTTPStatus

from litestar import Response, get

from service.api.access.authentication import FOR_METRICS, PROTECTED
from service.api.http.request_metrics import Traffic
from service.api.http.requests import AnyRequest, GivenServices, query_form
from service.api.schema.field_types import one_of, repeated
from service.api.schema.form import Field, Table
from service.api.schema.operations import SECURITY, problems, reads
from service.domain.observability.metrics import DETAIL_MOST, DETAILS

QUERY: Table = {
    "detail": Field(
        parser=repeated(one_of(DETAILS)),
        meaning=f"also tells of each of these, of at most {DETAIL_MOST:,} that were registered "
        "first; separated by commas or given repeatedly",
    )
}


@get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_description="The exposition",
    tags=["System"],
    middleware=PROTECTED,
    opt={FOR_METRICS: True},
    security=SECURITY,
    operation_class=reads(query=QUERY),
    media_type="text/plain",
    responses=problems(HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY),
)
async def metrics(request: AnyRequest, services: GivenServices) -> Response[bytes]:
    """Of the whole system, whichever process answers, but for `coursewire_api_*` and `process_*`,
    which are its own. The metrics token opens it too, and keys of any scope but `subscriber`."""
    query = query_form(request, QUERY).accept()
    traffic: Traffic = request.app.state.traffic
    exposition, content_type = await services.metrics.render(
        request.headers.get("accept", ""), traffic.collect(), query.get("detail", ())
    )
    # As a header, because a media type would get its charset twice.
    return Response(exposition, headers={"content-type": content_type})
