"""The protections of change detection, and what a careless poller would do in place of each.

Every entry of CARELESS takes one protection away, by the smallest change that such a poller
would amount to. A test that needs a protection runs a second time without it, and then has to
see the failure that the protection is there for.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import msgspec
import pytest

from service.clients.upstream import Page, RateLimit
from service.domain.courses import change as diff
from service.domain.courses.tracked_paths import CURRENT
from service.domain.errors import CoursesDifferError, UpstreamError, UpstreamInputError
from service.domain.polling import failure
from service.domain.polling.intervals import DELTA_OVERLAP_MS
from service.domain.polling.progress import after_absences, after_page
from service.domain.review.guards import Guards
from service.sandbox.content import parse_time
from service.storage.polling.catalogue import Batch, Catalogue, Progress
from service.storage.redis import keys, scripts
from service.storage.registry.credentials import CredentialStore
from service.storage.registry.integrations import IntegrationStore
from service.storage.scheduling.leases import LEASE_MS, Kind, Lease, Leases
from workers.polling import pages, waiting_changes
from workers.polling.absences import AbsenceSearch
from workers.polling.commit import Committer
from workers.polling.course_lookup import CourseLookup, LookupResult
from workers.polling.page_fetch import Fetcher

Patch = pytest.MonkeyPatch
LIMITLESS = Guards(deleted_share=1.0, deleted_share_max=1.0, changed_share=1.0)


# --- absences and mass changes ----------------------------------------------------------------


def _believe_absences(patch: Patch) -> None:
    """What a full poll did not show is gone; nobody is asked."""

    async def ask(self, request):
        course_ids, controls = request.course_ids, request.controls
        stored = await self._catalogue.read(self._integration_id, self._epoch, course_ids)
        return LookupResult(
            judged=[],
            returned=frozenset(),
            missing=dict(zip(course_ids, stored, strict=True)),
            whole=True,
            controls_live=len(controls),
            lacking=None if controls else "no_control",
        )

    patch.setattr(CourseLookup, "ask", ask)


def _look_without_controls(patch: Patch) -> None:
    """A full poll that saw nothing live proves as much as any other."""

    async def carry_out(self):
        progress = self._committer.progress
        await self.write_down(await self._catalogue.seen(self._integration_id, progress.poll_id))
        await self._committer.stash(after_absences(self._committer.progress))

    divide_found = waiting_changes.divide_found

    def believe(found, changes, limits):
        lacking = None if found.whole else found.lacking
        return divide_found(msgspec.structs.replace(found, lacking=lacking), changes, limits)

    patch.setattr(AbsenceSearch, "carry_out", carry_out)
    patch.setattr(waiting_changes, "divide_found", believe)


def _hold_nothing(patch: Patch) -> None:
    """No number of changes is too large."""
    get_many = IntegrationStore.get_many

    async def get_unguarded(self, ids):
        return [
            found and (msgspec.structs.replace(found[0], guards=LIMITLESS), found[1])
            for found in await get_many(self, ids)
        ]

    patch.setattr(IntegrationStore, "get_many", get_unguarded)


def _take_errors_for_the_end(patch: Patch) -> None:
    """A page that does not come is the last one, and has nothing in it."""
    page = Fetcher.page

    async def page_or_nothing(self, query):
        try:
            return await page(self, query)
        except UpstreamError:
            return Page(results=[], next=None, date_ms=None, rate=RateLimit(), size=0)

    patch.setattr(Fetcher, "page", page_or_nothing)


# --- the watermark ----------------------------------------------------------------------------


def _begin_at_the_watermark(patch: Patch) -> None:
    patch.setattr("service.domain.polling.progress.DELTA_OVERLAP_MS", 0)


def _replace_watermark(patch: Patch, choose: Callable[[Any, Any], int]) -> None:
    """`choose` names the watermark after a page, given the progress before it and the page."""

    def after(progress, page, now):
        watermark = choose(progress, page)
        return msgspec.structs.replace(after_page(progress, page, now), watermark=watermark)

    patch.setattr(pages, "after_page", after)


def _keep_the_end(patch: Patch) -> None:
    """The watermark is the time at which the poll ended."""
    _replace_watermark(patch, lambda _progress, _page: pages.now_ms())


def _keep_the_newest_row(patch: Patch) -> None:
    """The watermark is the latest time that any record carries."""
    received: list[bytes] = []
    page = Fetcher.page

    async def page_and_keep(self, query):
        found = await page(self, query)
        received[:] = map(bytes, found.results)
        return found

    def newest(progress, _page):
        records = b"".join(received).decode()
        stamps = [parse_time(found) for found in re.findall(r'"changed_at":"([^"]+)"', records)]
        before = progress.watermark
        if progress.pages == 0:
            before = (progress.updated_after or 0) + DELTA_OVERLAP_MS
        return max([before, *stamps])

    patch.setattr(Fetcher, "page", page_and_keep)
    _replace_watermark(patch, newest)


def _keep_our_time(patch: Patch) -> None:
    _replace_watermark(patch, lambda progress, _page: progress.watermark)


def _keep_their_time(patch: Patch) -> None:
    _replace_watermark(
        patch, lambda progress, page: progress.watermark if progress.pages else page.date_ms
    )


def _keep_it_after_a_failure(patch: Patch) -> None:
    """The watermark moves on whether the poll went well or not."""
    finish = Committer.finish

    async def finish_with_it(self, record, *, change, **others):
        change = msgspec.structs.replace(change, watermark=self.progress.watermark)
        await finish(self, record, change=change, **others)

    patch.setattr(Committer, "finish", finish_with_it)


# --- commits ----------------------------------------------------------------------------------


def _move_the_cursor_first(patch: Patch) -> None:
    """The poll's place is stored before what was found on the page."""
    commit = Committer.commit

    async def stash_then_commit(self, portion, planned):
        if portion.is_page:
            await self.stash(planned)
        await commit(self, portion, planned)

    patch.setattr(Committer, "commit", stash_then_commit)


def _store_state_first(patch: Patch) -> None:
    """Fingerprints are stored by themselves, and events after them."""
    commit = Catalogue.commit

    async def commit_twice(self, lease, *, progress, batch, increments, **others):
        silent = [msgspec.structs.replace(change, event=None) for change in batch.changes]
        await commit(
            self,
            lease,
            progress=progress,
            batch=msgspec.structs.replace(batch, changes=silent),
            increments=increments,
            **others,
        )
        told = [msgspec.structs.replace(change, live=0) for change in batch.changes]
        return await commit(
            self,
            lease,
            progress=Progress(progress.after, progress.after),
            batch=Batch(changes=told),
            increments=Counter(),
            **others,
        )

    patch.setattr(Catalogue, "commit", commit_twice)


def _compare_with_a_snapshot(patch: Patch) -> None:
    """The catalogue is read once, and its records are compared with what it held then."""
    snapshots = {}
    commit = Catalogue.commit

    async def read(self, integration_id, epoch, course_ids):
        if epoch not in snapshots:
            snapshots[epoch] = await self._redis.hgetall(keys.catalogue(integration_id, epoch))
        return [snapshots[epoch].get(course_id.encode()) for course_id in course_ids]

    async def commit_by_it(self, lease, *, epoch, batch, **others):
        try:
            return await commit(self, lease, epoch=epoch, batch=batch, **others)
        except CoursesDifferError as error:
            names = [batch.expected.course_ids[index].decode() for index in error.known]
            found = await read(self, lease.owned_id, epoch, names)
            raise CoursesDifferError(dict(zip(error.known, found, strict=True))) from None

    patch.setattr(Catalogue, "read", read)
    patch.setattr(Catalogue, "commit", commit_by_it)


# --- what outlives an edit, a restart, another worker -----------------------------------------


def _register_anew_on_edits(patch: Patch) -> None:
    """An edit, of the credential too, is a deletion and a registration."""
    update_credential = CredentialStore.update

    async def update(self, integration_id, change):
        integration, _ = await self.get(integration_id)
        await self.delete(integration_id)
        await self.create(change(integration))
        return integration

    async def update_users(self, credential_id, change, api_key=None):
        credential = await update_credential(self, credential_id, change, api_key)
        store = IntegrationStore(self._redis, self._matchers, self._counters)
        for user in await self._users(credential_id):
            await update(store, user.integration.id, lambda integration: integration)
        return credential

    patch.setattr(IntegrationStore, "update", update)
    patch.setattr(CredentialStore, "update", update_users)


class Process:
    """The process that runs the worker, as far as anything is kept in it."""

    number = 0

    @classmethod
    def restarts(cls) -> None:
        cls.number += 1


def _keep_in_the_process(patch: Patch, name: str) -> None:
    key = getattr(keys, name)
    patch.setattr(keys, name, lambda *owner: f"{key(*owner)}:{Process.number}")


def _without_line(patch: Patch, line: str, name: str) -> None:
    source = scripts.source

    def without(asked):
        text = source(asked)
        if scripts.snake(asked.__name__) != name:
            return text
        assert line in text
        return text.replace(line, "", 1)

    patch.setattr(scripts, "source", without)
    patch.setattr(scripts, "compiled", cache(scripts.Compiled))


def _give_all_one_token(patch: Patch) -> None:
    def new(_: Leases, kind: Kind, owned_id: str, duration_ms: int = LEASE_MS) -> Lease:
        return Lease(kind, owned_id, "the same", duration_ms)

    patch.setattr(Leases, "new", new)


def _commit_on_top_of_anything(patch: Patch) -> None:
    line = (
        "if (redis.call('HGET', integration, 'poll') or '') ~= progress_as_stored "
        "then return PROGRESS end"
    )
    _without_line(patch, line, "commit")


# --- comparing, resuming, beginning -----------------------------------------------------------


def _compare_bytes(patch: Patch) -> None:
    """Other bytes are another course."""
    patch.setattr(diff, "changed_paths", lambda *_: ("revisions",))


def _compare_only_the_same_version(patch: Patch) -> None:
    """A fingerprint of another version is another fingerprint."""
    changed = diff.changed_paths

    def compare(known, current, ignored, version):
        return changed(known, current, ignored, version) if version is CURRENT else ("revisions",)

    patch.setattr(diff, "changed_paths", compare)


def _keep_the_refused_cursor(patch: Patch) -> None:
    adapted = failure.adapted

    def keep(progress, error):
        return progress if isinstance(error, UpstreamInputError) else adapted(progress, error)

    patch.setattr(failure, "adapted", keep)


def _trust_any_watermark(patch: Patch) -> None:
    patch.setattr("service.domain.polling.integration.DELTA_HORIZON_MS", 10**15)


def _full_never(patch: Patch) -> None:
    patch.setattr("service.domain.polling.integration.full_due_at", lambda *_: 10**15)


def _know_no_baseline(patch: Patch) -> None:
    """The first poll is a poll like any other."""
    begin = Committer.__init__

    def begin_baselined(self, *arguments):
        *others, state, progress, stored = arguments
        begin(self, *others, msgspec.structs.replace(state, baselined=True), progress, stored)

    patch.setattr(Committer, "__init__", begin_baselined)


CARELESS: dict[str, Callable[[Patch], None]] = {
    "absences are verified": _believe_absences,
    "a live course was seen": _look_without_controls,
    "guards": _hold_nothing,
    "errors fail the poll": _take_errors_for_the_end,
    "overlap": _begin_at_the_watermark,
    "watermark is the start": _keep_the_end,
    "watermark is our clock's": _keep_the_newest_row,
    "watermark heeds their clock": _keep_our_time,
    "watermark heeds our clock": _keep_their_time,
    "watermark waits for success": _keep_it_after_a_failure,
    "cursor moves with the events": _move_the_cursor_first,
    "state moves with the events": _store_state_first,
    "fingerprints are read anew": _compare_with_a_snapshot,
    "edits keep the state": _register_anew_on_edits,
    "fingerprints outlive the process": lambda patch: _keep_in_the_process(patch, "catalogue"),
    "the seen set outlives the process": lambda patch: _keep_in_the_process(patch, "seen"),
    "lease": _give_all_one_token,
    "commits build on the last": _commit_on_top_of_anything,
    "canonical form": _compare_bytes,
    "older fingerprints are understood": _compare_only_the_same_version,
    "a refused cursor is given up": _keep_the_refused_cursor,
    "horizon": _trust_any_watermark,
    "regular full polls": _full_never,
    "baseline": _know_no_baseline,
}


def cases(*names: str, alone: Iterable[str] | None = None) -> list:
    """The cases of a test that needs these protections: with all of them, with each one alone
    (of `alone`, where not each suffices), and with none."""
    singles = (names if alone is None else tuple(alone)) if len(names) > 1 else ()
    kept = [names, *((name,) for name in singles), ()]
    ids = ["protected", *(f"only {name}" for name in singles), "unprotected"]
    return [
        pytest.param((frozenset(some), frozenset(names) - frozenset(some)), id=name)
        for some, name in zip(kept, ids, strict=True)
    ]


def protected_by(*names: str, alone: Iterable[str] | None = None) -> pytest.MarkDecorator:
    """Runs a test with and without these protections; `protected` is the set of those in force,
    which is empty, and false, in the run that must see the failure."""
    return pytest.mark.parametrize("protected", cases(*names, alone=alone), indirect=True)
