"""What a job works with, whatever process it runs in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from workers.send_share import SendShare

if TYPE_CHECKING:
    from service.bootstrap import Services
    from workers.dispatch.dispatcher import Dispatcher


class JobContext(msgspec.Struct, frozen=True):
    """What a job works with. `draining` is set once the process is to end: hand back then.

    All outboxes of the process share `send_share`. `lingering` holds what jobs have begun and not
    waited for; the process waits for it before it ends.
    """

    services: Services
    dispatcher: Dispatcher
    draining: asyncio.Event
    send_share: SendShare = msgspec.field(default_factory=SendShare)
    lingering: set[asyncio.Task[Any]] = msgspec.field(default_factory=set)
