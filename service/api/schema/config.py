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
    "The admin token, the metrics token, or the token of an API key. Each "
    "operation lists the scopes that authorize it; one of them is enough. `admin`: "
    "everything. `subscriber`: its own subscriptions, their deliveries, and the "
    "course events granted to the key; other resources return 404. `read`: reads "
    "everything but secrets and the audit trail. `metrics`: `/metrics` alone."
)
_TAGS = (
    (
        "Credentials",
        ("Base URLs of the upstream and the API keys that authorize requests to them."),
    ),
    ("Integrations", "Connected learning systems, their polls, and their courses."),
    (
        "Subscriptions",
        ("The receivers of events, their filters, and the settings of their pushes."),
    ),
    ("Replays", "Past events that are sent again."),
    ("Deliveries", ("Deliveries, their attempts, and the responses of the receivers.")),
    ("Events", "The event log: every change, in order."),
    (
        "Webhooks",
        ("The requests that Coursewire sends to subscribers, in the format of Standard Webhooks."),
    ),
    ("Access", "API keys, their scopes, and the audit trail."),
    ("System", "The state, metrics and health of the service."),
)


def config(settings: Settings, contract: Contract) -> OpenAPIConfig:
    """The document's head, and where it and its page are served."""
    documentation = " See also docs/api.md and the other files in docs of the project."
    if settings.docs_dir is not None:
        documentation = f" See also [the documentation]({settings.root_path}/docs/index.html)."
    return OpenAPIConfig(
        title="Coursewire",
        version=version(),
        description=(
            "Notifies downstream applications when a course changes. Times are RFC 3339 in "
            "UTC. Durations are in seconds. Lists are paginated: pass `next` as `after` to "
            "get the next page. Every response has an `X-Request-ID` header, and the log "
            "and the audit trail record the same id."
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
