"""The head of the OpenAPI document, and where it is served."""

from __future__ import annotations

from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import (
    Components,
    SecurityScheme,
    Server,
    Tag,
)

from service.api.http.version import version
from service.api.schema.document import Contract
from service.api.schema.reference_page import DocumentPlugin, ReferencePlugin, schema_router
from service.api.schema.webhooks import webhooks
from service.settings import Settings

_SCHEME = (
    "The token of an API key, or a token of the service's settings. Each operation lists "
    "the scopes that authorize it; one of them is enough. `admin`: all operations. "
    "`subscriber`: the key's own subscriptions, their deliveries, and the events that the key "
    "may see; other subscriptions and events return 404, other operations 403. `read`: reads "
    "everything except secrets, the audit trail and the preview of a review. `metrics`: reads "
    "`/metrics` and `/v1/me`."
)
_TAGS = (
    (
        "Credentials",
        ("Base URLs of the upstream and the API keys that authorize requests to them."),
    ),
    ("Integrations", "Connected learning systems, their polls, courses and reviews."),
    (
        "Subscriptions",
        ("The receivers of events, their filters, and the settings of their pushes."),
    ),
    ("Replays", "Past events that are sent again, and backfills."),
    ("Deliveries", ("Deliveries, their attempts, and the responses of the receivers.")),
    ("Events", "The event log: course events and operational events, in order."),
    (
        "Webhooks",
        ("The requests that Coursewire sends to subscribers, in the format of Standard Webhooks."),
    ),
    ("Access", "API keys, their scopes, and the audit trail."),
    ("System", "The state, metrics and health of the service."),
)


def config(settings: Settings, contract: Contract) -> OpenAPIConfig:
    """The document's head, and where it and its page are served."""
    documentation = " See also docs/api.md and the other pages in the project's folder docs."
    if settings.docs_dir is not None:
        documentation = f" See also [the documentation]({settings.root_path}/docs/index.html)."
    return OpenAPIConfig(
        title="Coursewire",
        version=version(),
        description=(
            "Notifies downstream applications when a course changes. Times are in RFC 3339 "
            "format and in UTC, except `times` of the history. Durations are in seconds, except "
            "in fields whose name ends with `_ms`. Lists are paginated: pass `next` as `after` "
            "to get the next page. Every response has an `X-Request-ID` header, unless the API "
            "cannot read the request or has too many open connections. The log records this id. "
            "For a change, the audit trail records it too."
        )
        + documentation,
        use_handler_docstrings=True,
        servers=[Server(url=settings.root_path or "/")],
        tags=[Tag(name=name, description=text) for name, text in _TAGS],
        components=Components(
            security_schemes={
                "bearer": SecurityScheme(type="http", scheme="bearer", description=_SCHEME)
            }
        ),
        webhooks=dict(webhooks()),
        render_plugins=[ReferencePlugin(), DocumentPlugin(contract)],
        openapi_router=schema_router(public=settings.public_docs),
    )
