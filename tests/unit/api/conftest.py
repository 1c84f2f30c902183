"""The API over a fake Redis, with an upstream and a receiver that do as they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import msgspec
import pytest
from litestar.testing import AsyncTestClient

from service.app import create_app
from service.bootstrap import Services, assemble
from service.clients.address_guard import AddressGuard
from service.clients.upstream import Page, RateLimit
from service.domain.delivery.outcome import Outcome, OutcomeClass
from service.settings import Settings
from service.storage.redis.rights import Rights
from tests.fake_redis import FakeRedis

ADMIN = "admin-token-of-this-test"
PREVIOUS = "previous-admin-token-of-this-test"
METRICS = "metrics-token-of-this-test"


class SteadyRedis(FakeRedis):
    """Tells the same of itself in every test."""

    told: ClassVar = {
        "run_id": "r1",
        "redis_version": "7.2.4",
        "server_name": "valkey",
        "valkey_version": "9.1.0",
        "uptime_in_seconds": 5,
        "used_memory": 1000,
        "maxmemory": 0,
        "aof_enabled": 1,
        "aof_last_write_status": "ok",
    }


class Granted(Rights):
    """Finds nothing wrong: fakeredis does not know all of the commands."""

    async def fault(self):
        return None


class FakeUpstream:
    """Answers with `error`, or with a page of `results`."""

    def __init__(self):
        self.error = None
        self.results = [b"{}"]
        self.asked = []

    async def fetch_page(self, credential, upstream_id, query):
        self.asked.append((credential, upstream_id, query))
        if self.error is not None:
            raise self.error
        return Page(results=self.results, next=None, date_ms=None, rate=RateLimit(), size=2)


class FakeReceiver:
    """Keeps what is posted and answers with `outcome`."""

    def __init__(self):
        self.outcome = Outcome(kind=OutcomeClass.DELIVERED, duration_ms=7, status=204)
        self.posted = []
        self.certificates = []

    async def post(self, url, headers, body, *, timeout, redactor, certificate=None):  # noqa: ASYNC109 - the real one's
        self.posted.append((url, headers, body, timeout))
        self.certificates.append(certificate)
        return self.outcome


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(
        admin_token=ADMIN,
        previous_admin_token=PREVIOUS,
        metrics_token=METRICS,
        encryption_keys=(b"k" * 32,),
        allowed_targets=("hooks.internal",),
    )


@pytest.fixture
def upstream() -> FakeUpstream:
    return FakeUpstream()


@pytest.fixture
def receiver() -> FakeReceiver:
    return FakeReceiver()


@pytest.fixture
async def services(settings, upstream, receiver) -> AsyncIterator[Services]:
    async with SteadyRedis() as redis:
        guard = AddressGuard(settings.allowed_targets)
        services = assemble(settings, redis, guard, upstream, receiver)
        services = msgspec.structs.replace(services, rights=Granted(redis))
        yield services
        await services.tail.close()


@pytest.fixture(scope="session")
def app(settings):
    """The application, built once; each test opens services of its own in it."""
    given = []

    @asynccontextmanager
    async def opened(_settings):
        yield given[-1]

    built = create_app(settings, open_services=opened)
    return built, given


@pytest.fixture
async def anonymous(app, services) -> AsyncIterator[AsyncTestClient]:
    """A client without a token."""
    built, given = app
    given.append(services)
    async with AsyncTestClient(built) as client:
        yield client
    given.clear()


@pytest.fixture
async def client(anonymous) -> AsyncTestClient:
    """A client with the admin token."""
    anonymous.headers["authorization"] = f"Bearer {ADMIN}"
    return anonymous


@pytest.fixture
def open_key(client):
    """Creates an API key and gives it, its token in `headers` for requests."""

    async def open_key(scope="subscriber", **fields):
        if scope == "subscriber" and "integration_ids" not in fields:
            fields = {"labels": {"tenant": "a"}, **fields}
        answer = await client.post("/v1/api-keys", json={"name": "k", "scope": scope, **fields})
        assert answer.status_code == 201, answer.text
        key = answer.json()
        return {**key, "headers": {"authorization": f"Bearer {key['token']}"}}

    return open_key


@pytest.fixture
def problem():
    """Checks that an answer is a problem of a type, and gives it."""

    def check(response, name, status):
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/problem+json"
        document = response.json()
        assert document["type"] == f"urn:coursewire:problem:{name}"
        assert document["status"] == status
        assert document["title"]
        assert document["detail"]
        return document

    return check


@pytest.fixture
def refused(problem):
    """Checks that an answer refuses exactly these fields, each with message and remedy."""

    def check(response, *fields):
        errors = problem(response, "validation", 422)["errors"]
        assert {error["field"] for error in errors} == set(fields), errors
        assert all(error["message"] and error["remedy"] for error in errors)
        return {error["field"]: error for error in errors}

    return check
