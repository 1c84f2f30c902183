"""create_app(): the Litestar application, nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cached_property, partial
from typing import cast

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.enums import ScopeType
from litestar.types import (
    ASGIApp,
    ControllerRouterHandler,
    LifeSpanReceive,
    LifeSpanScope,
    LifeSpanSend,
    Receive,
    Scope,
    Send,
)

from service import bootstrap
from service.api.access.audit_trail import AuditTrail
from service.api.access.auth_throttle import Failures
from service.api.access.authentication import PROTECTED, provide_actor
from service.api.access.idempotency import Idempotency
from service.api.access.route_guards import guard_of
from service.api.http.access_log import AccessLog
from service.api.http.cors import Cors
from service.api.http.path_prefix import Prefix
from service.api.http.problems import EXCEPTION_HANDLERS
from service.api.http.request_metrics import Traffic
from service.api.http.requests import (
    MAX_BODY_BYTES,
    JsonBodies,
    check_json,
    provide_params,
    provide_refusals,
    provide_sent_headers,
    provide_services,
)
from service.api.http.size_limits import Gate
from service.api.http.trusted_proxies import Proxies
from service.api.resources.api_keys import ApiKeyController
from service.api.resources.audit import list_audit_entries
from service.api.resources.credentials import CredentialController
from service.api.resources.deliveries import list_deliveries
from service.api.resources.event_stream import stream_events
from service.api.resources.events import EventController
from service.api.resources.history import show_history
from service.api.resources.integrations.courses import CourseController
from service.api.resources.integrations.integration_routes import IntegrationController
from service.api.resources.integrations.polls import PollController
from service.api.resources.integrations.reviews import ReviewController
from service.api.resources.me import MeController
from service.api.resources.redelivery import redeliver
from service.api.resources.replays import ReplayController
from service.api.resources.subscriptions.retry_deliveries import retry_deliveries
from service.api.resources.subscriptions.secrets import SecretController
from service.api.resources.subscriptions.send_test_event import send_test
from service.api.resources.subscriptions.statistics import show_statistics
from service.api.resources.subscriptions.subscription_routes import SubscriptionController
from service.api.schema import config as openapi
from service.api.schema.document import SECURITY, Contract, handlers
from service.api.system.documentation import documentation_route
from service.api.system.health import healthz, readyz, root
from service.api.system.metrics import metrics
from service.api.system.status import ControlController, StatusController
from service.bootstrap import Services
from service.console.routes import console_route
from service.settings import Settings

OpenServices = Callable[[Settings], AbstractAsyncContextManager[Services]]


class Application(Litestar):
    """Logs every request with an id, even those that the router refuses; the framework's middleware
    sees only requests that match a route."""

    async def __call__(
        self,
        scope: Scope | LifeSpanScope,
        receive: Receive | LifeSpanReceive,
        send: Send | LifeSpanSend,
    ) -> None:
        """The entry point of the server."""
        if scope["type"] == ScopeType.HTTP:
            await self.entrance(cast("Scope", scope), cast("Receive", receive), cast("Send", send))
        else:
            await super().__call__(scope, receive, send)

    @cached_property
    def entrance(self) -> ASGIApp:
        """The middleware before the router."""
        settings: Settings = self.state.settings
        app: ASGIApp = Gate(cast("ASGIApp", super().__call__))
        if settings.root_path:
            app = Prefix(app, settings.root_path)
        if settings.cors_origins:
            app = Cors(app, settings.cors_origins)
        app = AccessLog(app, self.state.traffic.count)
        if settings.trusted_proxies:
            app = Proxies(app, settings.trusted_proxies)
        return app


def create_app(settings: Settings, *, open_services: OpenServices | None = None) -> Litestar:
    """The API over the services that `open_services` opens while it runs.

    Raises SettingsError if no admin token is set.
    """
    settings.require("ADMIN_TOKEN", "ENCRYPTION_KEYS")
    opener = open_services or partial(bootstrap.open_services, part="api")

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with opener(settings) as services:
            app.state.services = services
            app.state.failures = Failures()
            yield

    v1 = Router(
        path="/v1",
        middleware=(*PROTECTED, Idempotency(), AuditTrail()),
        security=SECURITY,
        before_request=check_json,
        route_handlers=[
            CredentialController,
            IntegrationController,
            PollController,
            CourseController,
            ReviewController,
            SubscriptionController,
            SecretController,
            send_test,
            show_statistics,
            ReplayController,
            list_deliveries,
            retry_deliveries,
            EventController,
            redeliver,
            stream_events,
            StatusController,
            show_history,
            ControlController,
            ApiKeyController,
            MeController,
            list_audit_entries,
        ],
    )
    contract = Contract()
    pages: list[ControllerRouterHandler] = []
    if settings.console:
        pages.append(console_route(settings.root_path, documented=settings.docs_dir is not None))
    if settings.docs_dir is not None:
        pages.append(documentation_route(settings.docs_dir))
    app = Application(
        route_handlers=[v1, root, healthz, readyz, metrics, *pages],
        dependencies={
            "services": Provide(provide_services),
            "params": Provide(provide_params),
            "sent_headers": Provide(provide_sent_headers),
            "refusals": Provide(provide_refusals),
            "actor": Provide(provide_actor),
        },
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=[lifespan],
        logging_config=None,
        openapi_config=openapi.config(settings, contract),
        plugins=[JsonBodies()],
        request_max_body_size=MAX_BODY_BYTES,
        state=State({"settings": settings, "traffic": Traffic(), "stopping": False}),
    )
    contract.app = app
    for _, _, handler in handlers(app):
        if handler.resolve_security() == SECURITY:
            guard_of(handler)
    return app
