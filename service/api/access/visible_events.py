"""What may be seen of the events by someone who goes on reading them."""

from __future__ import annotations

import msgspec

from service.bootstrap import Services
from service.domain.access.grants import Actor
from service.domain.events.event import EventFilter


class VisibleEvents:
    """Asked again before each page, since a key may be revoked meanwhile, or may see less."""

    def __init__(self, actor: Actor, services: Services, wanted: EventFilter) -> None:
        self._actor = actor
        self._services = services
        self._wanted = wanted

    async def filter(self) -> EventFilter | None:
        """The events to show now; None once their key is gone."""
        grant = self._actor.grant
        if self._actor.key_id is not None:
            key = await self._services.api_keys.current(self._actor.key_id)
            if key is None:
                return None
            grant = key.visibility
        if grant == self._wanted.grant:
            return self._wanted
        return msgspec.structs.replace(self._wanted, grant=grant)
