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
    "The admin token, the metrics token, or that of an API key. Each operation names the scopes of "
    "which any one opens it. `admin`: everything. `subscriber`: its own subscriptions, their "
    "deliveries, and the course events granted to it; what is not its own is not found. `read`: "
    "reads everything but secrets and the audit trail. `metrics`: `/metrics` alone."
)
_TAGS = (
    ("Credentials", "Base URLs of the upstream and the API keys that open them."),
    ("Integrations", "Connected learning systems, how they are polled and what is known of them."),
    ("Subscriptions", "Who is told of changes, of which, and how."),
    ("Replays", "Events of the past that are sent once more."),
    ("Deliveries", "What was sent, and what came back."),
    ("Events", "The event log: every change, in order."),
    ("Webhooks", "What subscribers are sent, after Standard Webhooks."),
    ("Access", "Who may do what."),
    ("System", "How the service itself is doing."),
)


def config(settings: Settings, contract: Contract) -> OpenAPIConfig:
    """The document's head, and where it and its page are served."""
    documentation = ""
    if settings.docs_dir is not None:
        documentation = f" Read on in [the documentation]({settings.root_path}/docs/index.html)."
    return OpenAPIConfig(
        title="Coursewire",
        version=version(),
        description=(
            "Tells downstream applications that a course changed. Times are RFC 3339 in UTC, "
            "durations are seconds, lists are pages that `next` leads on from. Every answer has an "
            "`X-Request-ID`, under which the log and the audit trail speak of the request."
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
