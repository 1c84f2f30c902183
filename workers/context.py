"""The dependencies of a job, in any process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from workers.send_share import SendShare

if TYPE_CHECKING:
    from service.bootstrap import Services
    from workers.dispatch.dispatcher import Dispatcher


class JobContext(msgspec.Struct, frozen=True):
    """The dependencies of a job. `draining` is set when the process stops: jobs must return their
    work then. All outboxes of the process share `send_share`. `lingering` holds tasks that jobs
    have started without waiting for them; the process waits for them before it ends."""

    services: Services
    dispatcher: Dispatcher
    draining: asyncio.Event
    send_share: SendShare = msgspec.field(default_factory=SendShare)
    lingering: set[asyncio.Task[Any]] = msgspec.field(default_factory=set)
