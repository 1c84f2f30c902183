"""The rate limit of a response is stored while its page is processed."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter

import pytest

from service.clients.upstream import Page, PageQuery, RateLimit
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.polling.integration import Integration
from workers.polling.page_fetch import Fetcher


class Budgets:
    """Always lets a request pass. It stores a rate limit when `may_store` is set, unless it
    `fails`."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.may_store = asyncio.Event()
        self.fails = False

    async def spend(self, *_arguments):
        self.log.append("spent")

    async def note(self, _credential_id, **_reported):
        await self.may_store.wait()
        if self.fails:
            raise ConnectionError("Redis is away")
        self.log.append("stored")


class Upstream:
    async def fetch_page(self, *_arguments):
        return Page(results=[], next=None, date_ms=None, rate=RateLimit(60, 9, 30.0), size=0)


class BodyError(Exception):
    """What happens to the caller while a rate limit is being stored."""


@pytest.fixture
def budgets():
    return Budgets()


@pytest.fixture
def fetcher(budgets):
    integration = Integration(
        id="int_1",
        name="One",
        upstream_id="workday:one",
        credential_id="cred_1",
        created_at=0,
        updated_at=0,
    )
    credential = UpstreamCredential("http://upstream", "key")
    return Fetcher(Upstream(), budgets, integration, credential, "full", 0, Counter().update)


async def others_run() -> None:
    """Lets all tasks run as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_next_request_waits_until_it_is_stored(fetcher, budgets):
    async with fetcher:
        await fetcher.page(PageQuery())
        following = asyncio.create_task(fetcher.page(PageQuery()))
        await others_run()
        assert budgets.log == ["spent"]
        budgets.may_store.set()
        await following
    assert budgets.log == ["spent", "stored", "spent", "stored"]


@pytest.mark.parametrize("fails", [False, True])
async def test_the_end_waits_until_it_is_stored(fetcher, budgets, fails):
    async def use() -> None:
        async with fetcher:
            await fetcher.page(PageQuery())
            if fails:
                raise BodyError

    use_ends = asyncio.create_task(use())
    await others_run()
    assert not use_ends.done()
    budgets.may_store.set()
    await asyncio.wait([use_ends])
    assert budgets.log == ["spent", "stored"]
    assert isinstance(use_ends.exception(), BodyError if fails else type(None))


async def test_a_caller_that_is_cancelled_while_it_waits_does_not_prevent_it(fetcher, budgets):
    async with fetcher:
        await fetcher.page(PageQuery())
        following = asyncio.create_task(fetcher.page(PageQuery()))
        await others_run()
        following.cancel()
        await asyncio.wait([following])
        assert following.cancelled()
        budgets.may_store.set()
    assert budgets.log == ["spent", "stored"]


@pytest.mark.parametrize("body_fails", [False, True])
async def test_a_failure_is_raised_at_the_end_unless_another_is(fetcher, budgets, body_fails):
    unhandled: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, found: unhandled.append(found))
    budgets.fails = True
    budgets.may_store.set()

    async def use() -> None:
        async with fetcher:
            await fetcher.page(PageQuery())
            await others_run()
            if body_fails:
                raise BodyError

    with pytest.raises(BodyError if body_fails else ConnectionError):
        await use()
    gc.collect()
    assert unhandled == []


async def test_a_failure_is_raised_by_the_next_request_and_only_once(fetcher, budgets):
    budgets.fails = True
    budgets.may_store.set()
    async with fetcher:
        await fetcher.page(PageQuery())
        with pytest.raises(ConnectionError):
            await fetcher.page(PageQuery())
    assert budgets.log == ["spent"]
