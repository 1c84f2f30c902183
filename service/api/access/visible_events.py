"""The events that a client may see while it keeps reading."""

from __future__ import annotations

import msgspec

from service.bootstrap import Services
from service.domain.access.grants import Actor
from service.domain.events.event import EventFilter


class VisibleEvents:
    """Checked again before each page, because a key may be revoked or narrowed meanwhile."""

    def __init__(self, actor: Actor, services: Services, wanted: EventFilter) -> None:
        self._actor = actor
        self._services = services
        self._wanted = wanted

    async def filter(self) -> EventFilter | None:
        """The filter of visible events; None once the key is revoked."""
        grant = self._actor.grant
        if self._actor.key_id is not None:
            key = await self._services.api_keys.current(self._actor.key_id)
            if key is None:
                return None
            grant = key.visibility
        if grant == self._wanted.grant:
            return self._wanted
        return msgspec.structs.replace(self._wanted, grant=grant)
