"""Requests an integration's pages from the upstream, within its credential's budget."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Self

from service.clients.upstream import Page, PageQuery, UpstreamClient
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.errors import UpstreamRateLimitedError
from service.domain.observability.metrics import RATE_LIMIT_REMAINING, UPSTREAM_REQUEST, observe
from service.domain.polling.integration import Integration, PollKind
from service.storage.polling.budgets import DEFAULT_HOLD_SECONDS, Budgets
from service.storage.redis.counters import field
from workers.polling.turn_budget import TurnOverError


class Fetcher:
    """One integration's requests during one turn, one after the other. `slot` is the poll's slot in
    the queue for the budget, 0 if none; `count` receives the increments of each request.

    A response's rate limit is stored while the caller processes its page. It is stored before the
    next request, and before the context manager ends.
    """

    def __init__(
        self,
        upstream: UpstreamClient,
        budgets: Budgets,
        integration: Integration,
        credential: UpstreamCredential,
        kind: PollKind,
        slot: int,
        count: Callable[[Counter[str]], None],
    ) -> None:
        self._upstream = upstream
        self._budgets = budgets
        self._integration = integration
        self._credential = credential
        self._kind: PollKind = kind
        self._slot = slot
        self._count = count
        self._storing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, error: type[BaseException] | None, *_: object) -> None:
        if self._storing is not None:
            (failure,) = await asyncio.gather(self._storing, return_exceptions=True)
            if failure is not None and error is None:
                raise failure

    async def page(self, query: PageQuery) -> Page:
        """One page. Raises the `UpstreamError` of its failure, or TurnOverError if the budget
        requires a wait."""
        await self._until_stored()
        credential_id = self._integration.credential_id
        line = await self._budgets.spend(credential_id, self._kind, self._slot)
        if line is not None:
            self._count_wait()
            raise TurnOverError(
                "rate_limited",
                wait_ms=line.wait_ms,
                slot=line.at,
                reason="waiting for the upstream's rate limit",
            )
        self._slot = 0
        began = time.monotonic()
        try:
            page = await self._upstream.fetch_page(
                self._credential, self._integration.upstream_id, query
            )
        except UpstreamRateLimitedError as error:
            line = await self._budgets.hold(
                credential_id, self._kind, error.retry_after or DEFAULT_HOLD_SECONDS
            )
            self._count_wait()
            raise TurnOverError(
                "rate_limited", wait_ms=line.wait_ms, slot=line.at, reason=str(error)
            ) from error
        finally:
            self._count(observe(UPSTREAM_REQUEST, time.monotonic() - began))
        limit, remaining = page.rate.limit, page.rate.remaining
        if limit and remaining is not None:
            self._count(observe(RATE_LIMIT_REMAINING, min(1, remaining / limit)))
        self._storing = asyncio.create_task(
            self._budgets.note(
                credential_id,
                limit=limit,
                remaining=remaining,
                reset_seconds=page.rate.reset_seconds,
            )
        )
        return page

    async def _until_stored(self) -> None:
        """Waits until the last response's rate limit is stored. Raises RedisError."""
        if (storing := self._storing) is not None:
            await asyncio.wait([storing])  # if the caller is cancelled, it is stored all the same
            self._storing = None
            storing.result()

    def _count_wait(self) -> None:
        self._count(Counter([field("rate_limit_waits_total", kind=self._kind)]))
