"""The fixtures of the integration tests, and one world in which a change can travel."""

from __future__ import annotations

import pytest

from tests.integration.conftest import (  # noqa: F401 - fixtures are found by their names
    Harness,
    Hook,
    Registered,
    context,
    hook,
    register,
    sandbox,
    services,
    subscribe,
)


class World:
    """An integration with a completed baseline, and one subscriber to everything it publishes."""

    def __init__(self, integration: Registered, subscription: Harness, receiver: Hook) -> None:
        self.integration = integration
        self.subscription = subscription
        self.receiver = receiver

    async def poll(self, kind: str = "delta") -> None:
        """Polls the upstream once and commits what changed."""
        await self.integration.poll(kind)

    async def deliver(self) -> None:
        """Sends what is due to the subscriber."""
        await self.subscription.turn()

    def received(self, what: str = "course.") -> list[dict]:
        """The bodies that the receiver was sent, in order, of types that begin with `what`."""
        return [body for _, body, _ in self.receiver.received if body["type"].startswith(what)]


@pytest.fixture
async def world(register, subscribe, hook) -> World:  # noqa: F811 - the imported fixtures
    integration = await register()
    subscription = await subscribe()
    await integration.turn()
    return World(integration, subscription, hook)
