"""The sandbox as an upstream that is called in place of being asked over HTTP."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import httpx
import msgspec

from service.clients.upstream import Page, PageQuery, UpstreamClient
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.errors import UpstreamUnavailableError
from service.sandbox.catalogue import Catalogue
from service.sandbox.changes import (
    UNSEEN_BY_UPDATED_AFTER,
    ChangeRequest,
    ChangesRefusedError,
    State,
)
from service.sandbox.content import decode_course
from service.sandbox.edits import touched_paths
from service.sandbox.endpoint import Endpoint, Incoming
from service.sandbox.faults import AnyFault

UPSTREAM_ID = "workday:integration"
API_KEY = "sandbox-key"
MOST_REQUESTS = 500  # of one turn: more is a poll that does not end

# Faults whose answers pass for good ones: what they hid is found by the next full poll only.
DISTORTING = {"empty", "end_early", "vanish", "shift", "wrong_types"}


class EndlessError(AssertionError):
    """A turn that asks and asks."""


class Upstream:
    """One integration of the sandbox, its clock, and all versions of its courses.

    `versions` are the bodies that a course ever had, None while it was not live; Of
    each course's last change that a kind of poll shows, `visible` is the number, and the
    version it led to; `vanished` is the number of its last disappearance, which none shows.
    """

    def __init__(self, courses: int, seed: int, now: int, skew: int) -> None:
        self.now = now
        self.skew = skew
        self.catalogue = Catalogue(UPSTREAM_ID, courses=courses, seed=seed)
        self.endpoint = Endpoint(api_key=API_KEY, rate_limit_per_minute=1_000_000, seed=seed)
        self.endpoint.catalogues[UPSTREAM_ID] = self.catalogue
        self.versions: dict[str, list[bytes | None]] = {}
        self.visible: dict[str, dict[str, tuple[int, int]]] = {"delta": {}, "full": {}}
        self.vanished: dict[str, int] = {}
        self.shown: dict[str, list[bytes]] = {}
        self.distorted = False
        self.requests = 0
        self._client = UpstreamClient(None, clock=lambda: self.now / 1000)
        for summary in self.catalogue.courses():
            self._note(summary.id)

    # --- as a client sees it -------------------------------------------------------------

    async def fetch_page(
        self, credential: UpstreamCredential, upstream_id: str, query: PageQuery
    ) -> Page:
        self.requests += 1
        if self.requests > MOST_REQUESTS:
            raise EndlessError
        incoming = Incoming(
            "GET",
            urlencode(query.parameters()),
            {
                "authorization": f"Bearer {credential.api_key}",
                "x-integration-id": upstream_id,
            },
        )
        answer, served = self.endpoint.answer(incoming, self.now, self.skew)
        if DISTORTING.intersection(served.faults):
            self.distorted = True
        if answer.drop_after is not None:
            raise UpstreamUnavailableError("the connection closed")
        response = httpx.Response(answer.status, headers=answer.headers)
        if answer.status != 200:
            raise self._client.error_of(response, answer.body, credential.api_key)
        page = self._client.page_of(response, answer.body, credential.api_key)
        for record in page.results:
            body = bytes(record)
            name = msgspec.json.decode(body)["id"]
            if isinstance(name, str):
                self.shown.setdefault(name, []).append(body)
        return page

    # --- what happens to it --------------------------------------------------------------

    @property
    def changes(self) -> int:
        return self.catalogue.changes

    def states(self) -> dict[str, State]:
        return {summary.id: summary.state for summary in self.catalogue.courses()}

    def live(self) -> dict[str, bytes]:
        return {
            course_id: self.catalogue.record(course_id)
            for course_id, state in self.states().items()
            if state is State.LIVE
        }

    def change(self, **request: Any) -> None:
        """Makes one change; one that cannot be made is none."""
        before = self.changes
        try:
            self.catalogue.apply([ChangeRequest(**request)], self.now, self.skew)
        except ChangesRefusedError:
            assert self.changes == before
        for change in self.catalogue.log(before):
            version = self._note(change.course_id)
            if change.op == "vanish":
                self.vanished[change.course_id] = change.n
                continue
            self.visible["full"][change.course_id] = (change.n, version)
            if change.op not in UNSEEN_BY_UPDATED_AFTER:
                self.visible["delta"][change.course_id] = (change.n, version)

    def _note(self, course_id: str) -> int:
        versions = self.versions.setdefault(course_id, [])
        live = self.states()[course_id] is State.LIVE
        body = self.catalogue.record(course_id) if live else None
        if not versions or versions[-1] != body:
            versions.append(body)
        return len(versions) - 1

    def fault(self, fault: AnyFault) -> None:
        self.endpoint.faults.add(fault)

    def heal(self) -> None:
        self.endpoint.faults.clear()


def differing(before: bytes, after: bytes) -> set[str]:
    """The paths in which two records of a course differ, told without the fingerprints."""
    return set(touched_paths(decode_course(before), decode_course(after)))
