"""The control API: what a test or a demo does to the sandbox, as JSON under `/control`.

It has no authentication, because the sandbox is a development tool on loopback. Lists are
plain JSON arrays. A request that is not understood gets 400, an integration, course or fault
that is not there 404, and a change that cannot be made 409.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException, NotFoundException
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import Meta

from service.sandbox.catalogue import Catalogue, CourseSummary, FilterName
from service.sandbox.changes import Change, ChangeRequest, ChangesRefusedError
from service.sandbox.churn import Churn
from service.sandbox.clock import Clock
from service.sandbox.endpoint import Endpoint, Served
from service.sandbox.faults import ActiveFault, AnyFault, BombFault
from service.sandbox.travel import gzip_bomb

MAX_COURSES = 1_000_000
MAX_SKEW_SECONDS = 1_000_000_000
"""About 30 years, so that dates stay within four-digit years."""
Natural = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True)
class Sandbox:
    """The parts of the sandbox."""

    endpoint: Endpoint
    churn: Churn
    clock: Clock
    access_log: Path | None = None

    def catalogue(self, upstream_id: str) -> Catalogue:
        """The integration's courses. Raises NotFoundException."""
        catalogue = self.endpoint.catalogues.get(upstream_id)
        if catalogue is None:
            raise NotFoundException(f"there is no integration {upstream_id!r}")
        return catalogue


class NewIntegration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An integration to make. Unsupported filters find nothing, as at the upstream, unless the
    request has `ignore_unsupported_filters=true`. With `null_lists` a list of `revisions`,
    `integration_fields` or `skill_assignments` without an entry is served as null.
    """

    upstream_id: Annotated[str, Meta(min_length=1, max_length=200)]
    courses: Annotated[int, Meta(ge=0, le=MAX_COURSES)] = 50
    seed: int = 1
    unsupported_filters: frozenset[FilterName] = frozenset()
    null_lists: bool = False


class IntegrationSummary(msgspec.Struct, frozen=True, kw_only=True):
    """An integration: the number of courses that ever existed, of live ones, and its last
    change."""

    upstream_id: str
    seed: int
    courses: int
    live: int
    changes: int


class ChurnRate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Changes per second over all integrations; 0 stops."""

    per_second: Annotated[float, Meta(ge=0, le=10_000)]


class ClockSkew(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many seconds the clock is ahead of the true time; negative if it is behind."""

    skew_seconds: Annotated[float, Meta(ge=-MAX_SKEW_SECONDS, le=MAX_SKEW_SECONDS)]


class RateLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests that are accepted in a minute."""

    per_minute: Annotated[int, Meta(ge=0, le=1_000_000_000)]


def _summary(catalogue: Catalogue) -> IntegrationSummary:
    return IntegrationSummary(
        upstream_id=catalogue.upstream_id,
        seed=catalogue.seed,
        courses=catalogue.size,
        live=catalogue.live,
        changes=catalogue.changes,
    )


class IntegrationControl(Controller):
    """Integrations and their courses."""

    path = "/control/integrations"

    @get()
    async def list_integrations(
        self, sandbox: NamedDependency[Sandbox]
    ) -> list[IntegrationSummary]:
        """All integrations."""
        return [_summary(catalogue) for catalogue in sandbox.endpoint.catalogues.values()]

    @post()
    async def create_integration(
        self, sandbox: NamedDependency[Sandbox], data: JSONBody[NewIntegration]
    ) -> IntegrationSummary:
        """Make an integration. 409 if there is one of that id."""
        if data.upstream_id in sandbox.endpoint.catalogues:
            raise HTTPException(
                f"there is an integration {data.upstream_id!r} already", status_code=409
            )
        catalogue = Catalogue(
            data.upstream_id,
            courses=data.courses,
            seed=data.seed,
            unsupported_filters=data.unsupported_filters,
            null_lists=data.null_lists,
        )
        sandbox.endpoint.catalogues[data.upstream_id] = catalogue
        return _summary(catalogue)

    @get("/{upstream_id:str}/courses")
    async def list_courses(
        self,
        sandbox: NamedDependency[Sandbox],
        upstream_id: FromPath[str],
        limit: FromQuery[Natural | None] = None,
    ) -> list[CourseSummary]:
        """The first `limit` courses (default: all) in page order: `id`, `remote_id`, `state`
        (live, deleted, anonymised, vanished) and `updated_at`.
        """
        return sandbox.catalogue(upstream_id).courses(limit)

    @get("/{upstream_id:str}/courses/{course_id:str}")
    async def get_course(
        self,
        sandbox: NamedDependency[Sandbox],
        upstream_id: FromPath[str],
        course_id: FromPath[str],
    ) -> Response[bytes]:
        """One record, byte for byte as the endpoint serves it. 404 for a vanished one."""
        body = sandbox.catalogue(upstream_id).record(course_id)
        if body is None:
            raise NotFoundException(f"there is no course {course_id!r}")
        return Response(body, media_type="application/json")

    @post("/{upstream_id:str}/changes", status_code=200)
    async def make_changes(
        self,
        sandbox: NamedDependency[Sandbox],
        upstream_id: FromPath[str],
        data: JSONBody[list[ChangeRequest]],
    ) -> list[Change]:
        """Make changes, in order: `[{"op", "course_id"?, "count"?, "all"?, "path"?,
        "updated_at"?, "keep_deleted_at"?}]`. The answer lists each changed course: `n`, `at`,
        `op`, `course_id`, `paths`.

        Without `course_id` courses are drawn: live ones, for `restore` gone ones, for
        `anonymise` tombstones before live ones; distinct within one request. `all: true` takes
        every course that the operation fits, be there none. Ops: create, edit, delete
        (tombstone), vanish (no tombstone), restore, anonymise, provider (another provider;
        with path `provider.name` its name, for all who share it), skill, revision_add,
        revision_remove; and for the whole integration field_off and field_on, which serve the
        field at `path` as null, or an empty list, until it is switched on again.

        `updated_at` (like 2026-11-23T09:30:00.000Z) is the time that `updated_after` looks at
        and the record carries for the change; without it, the time of the change. `at` is the
        time of the change in any case.

        409 at the first change that cannot be made; `extra.applied` lists those before it.
        """
        try:
            return sandbox.catalogue(upstream_id).apply(
                data, sandbox.clock.now(), sandbox.clock.skew
            )
        except ChangesRefusedError as error:
            raise HTTPException(
                str(error),
                status_code=409,
                extra={"applied": msgspec.to_builtins(error.applied)},
            ) from error

    @get("/{upstream_id:str}/log")
    async def read_log(
        self,
        sandbox: NamedDependency[Sandbox],
        upstream_id: FromPath[str],
        after: FromQuery[Natural] = 0,
    ) -> list[Change]:
        """Every change with a number above `after`, automatic ones included."""
        return sandbox.catalogue(upstream_id).log(after)


class ServedControl(Controller):
    """The endpoint's requests and responses."""

    path = "/control/served"

    @get()
    async def list_served(
        self, sandbox: NamedDependency[Sandbox], after: FromQuery[Natural] = 0
    ) -> list[Served]:
        """The requests with a number above `after`; the last 20,000 are kept."""
        return sandbox.endpoint.served(after)


class FaultControl(Controller):
    """Faults in force; `faults.py` describes each kind."""

    path = "/control/faults"

    @get()
    async def list_faults(self, sandbox: NamedDependency[Sandbox]) -> list[ActiveFault]:
        """The faults that can still strike."""
        return sandbox.endpoint.faults.active()

    @post()
    async def add_fault(
        self, sandbox: NamedDependency[Sandbox], data: JSONBody[AnyFault]
    ) -> ActiveFault:
        """Put one fault in force: `{"kind": ..., "times"?, "probability"?, "upstream_id"?,
        "on"?}` and what the kind takes. Kinds: error, html, delay, drop, truncate, empty,
        end_early, vanish, shift, repeat_cursor, endless, wrong_types, drip, bomb, bloat.
        """
        if isinstance(data, BombFault):
            # The body is cached here, so that no response has to wait for it.
            await asyncio.to_thread(gzip_bomb, data.megabytes)
        return sandbox.endpoint.faults.add(data)

    @delete()
    async def clear_faults(self, sandbox: NamedDependency[Sandbox]) -> None:
        """End all faults."""
        sandbox.endpoint.faults.clear()

    @delete("/{fault_id:int}")
    async def remove_fault(
        self, sandbox: NamedDependency[Sandbox], fault_id: FromPath[int]
    ) -> None:
        """End one fault."""
        if not sandbox.endpoint.faults.remove(fault_id):
            raise NotFoundException(f"there is no fault {fault_id}")


class ChurnControl(Controller):
    """Automatic changes."""

    path = "/control/churn"

    @get()
    async def get_churn(self, sandbox: NamedDependency[Sandbox]) -> ChurnRate:
        """The rate in force."""
        return ChurnRate(sandbox.churn.per_second)

    @post(status_code=200)
    async def set_churn(
        self, sandbox: NamedDependency[Sandbox], data: JSONBody[ChurnRate]
    ) -> ChurnRate:
        """Set the rate: edits, provider and skill changes, revisions, creates, deletes and
        restores, mixed.
        """
        sandbox.churn.set_rate(data.per_second)
        return data


class ClockControl(Controller):
    """A wrong clock."""

    path = "/control/clock"

    @get()
    async def get_clock(self, sandbox: NamedDependency[Sandbox]) -> ClockSkew:
        """The skew in force."""
        return ClockSkew(sandbox.clock.skew / 1000)

    @post(status_code=200)
    async def set_clock(
        self, sandbox: NamedDependency[Sandbox], data: JSONBody[ClockSkew]
    ) -> ClockSkew:
        """Date answers and later changes by a clock that is so far off. The logs and the
        request budget keep the true time.
        """
        sandbox.clock.skew = round(data.skew_seconds * 1000)
        return data


class RateLimitControl(Controller):
    """The request budget of the API key."""

    path = "/control/rate-limit"

    @get()
    async def get_rate_limit(self, sandbox: NamedDependency[Sandbox]) -> RateLimit:
        """The limit in force."""
        return RateLimit(sandbox.endpoint.rate_limit_per_minute)

    @post(status_code=200)
    async def set_rate_limit(
        self, sandbox: NamedDependency[Sandbox], data: JSONBody[RateLimit]
    ) -> RateLimit:
        """Set the limit; a fresh minute begins with the next request."""
        sandbox.endpoint.limit_rate(data.per_minute)
        return data
