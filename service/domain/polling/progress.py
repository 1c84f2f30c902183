"""One poll's progress, and its pure transitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from service.domain.courses.change import Judgement, Verdict
from service.domain.polling.flapping_paths import sampled
from service.domain.polling.id_requests import can_be_asked
from service.domain.polling.integration import PollKind, PollRecord, believed_date
from service.domain.polling.intervals import DELTA_OVERLAP_MS
from service.domain.polling.observations import Reason

PAGE_SIZE = 250
MIN_PAGE_SIZE = 10
MIN_UNREADABLE_PAGE_SIZE = 1  # after a page that arrives and cannot be read
PAGES_BEFORE_LARGER = 10  # pages between two attempts at larger ones
FULL_PATIENCE_MS = 10 * 60_000  # of a full poll without a page, while deltas wait for it
RESUMABLE_MS = 30 * 60_000  # an interrupted poll is resumed if its last page is at most this old


class PollProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a poll after its last commit. Times are epoch ms.

    `updated_after` is where a delta begins (None for a full poll); `watermark` is the watermark
    after the poll; `phase` is reading pages, finding absences, or confirming the changes that wait;
    `step` counts commits, so that all states of a poll differ; `landmark` is an earlier cursor, to
    detect repeated pages; `controls` are the ids of the first and the last live course; `not_live`
    counts records of courses that do not count as live; `changed` counts courses by changed path,
    and `waiting` is whether any change waits for the end; `slot` is the ms of its turn to spend
    from the credential's budget; `skew_ms` how far the upstream's clock is ahead of ours; `error`
    the failure of the last attempt; `cached_ms` the age of the first response, if it came from a
    cache; `nameless` counts records without an id, `unconfirmed` changes that were not confirmed,
    by reason; `samples` are of the courses that changed, by path.
    """

    poll_id: str
    kind: PollKind
    epoch: str
    started_at: int
    updated_at: int
    requested_at: int | None = None
    watermark: int
    updated_after: int | None = None
    cursor: str | None = None
    landmark: str | None = None
    phase: Literal["pages", "absences", "confirmation"] = "pages"
    step: int = 0
    restarts: int = 0
    page_size: int = PAGE_SIZE
    pages: int = 0
    records: int = 0
    not_live: int = 0
    controls: tuple[str, ...] = ()
    changes: int = 0
    changed: dict[str, int] = {}
    waiting: bool = False
    verdicts: dict[str, int] = {}
    slot: int = 0
    skew_ms: int | None = None
    error: str | None = None
    cached_ms: int = 0
    nameless: int = 0
    unconfirmed: dict[str, int] = {}
    samples: dict[str, tuple[int, ...]] = {}

    def record(
        self,
        state: Literal["running", "completed", "failed"] = "running",
        *,
        finished_at: int | None = None,
        error: str | None = None,
    ) -> PollRecord:
        """The poll as listed."""
        return PollRecord(
            id=self.poll_id,
            kind=self.kind,
            state=state,
            requested_at=self.requested_at,
            started_at=self.started_at,
            finished_at=finished_at,
            pages=self.pages,
            records=self.records,
            verdicts=self.verdicts,
            changes=self.changes,
            error=self.error if state == "running" else error,
        )


class PageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The additions of a page to the progress of a poll.

    `next` is the cursor of the next page, `date_ms` the upstream's time and `age_ms` the age of the
    response. `live` are the ids of the page's live courses: at least the first and the last.
    """

    next: str | None
    date_ms: int | None
    age_ms: int
    records: int
    live: Sequence[str]
    not_live: int = 0
    nameless: int = 0


# --- the beginning ---------------------------------------------------------------------------


def begin(
    poll_id: str, kind: PollKind, epoch: str, watermark: int | None, now_ms: int
) -> PollProgress:
    """A poll that has not sent a request yet."""
    return PollProgress(
        poll_id=poll_id,
        kind=kind,
        epoch=epoch,
        started_at=now_ms,
        updated_at=now_ms,
        watermark=now_ms,
        updated_after=(watermark or 0) - DELTA_OVERLAP_MS if kind == "delta" else None,
    )


def resumable(progress: PollProgress, epoch: str, now_ms: int) -> bool:
    """Whether an interrupted poll may be resumed."""
    return progress.epoch == epoch and now_ms - progress.updated_at <= RESUMABLE_MS


def for_request(progress: PollProgress, request: PollRecord) -> PollProgress:
    """The poll as the response to a request for one."""
    return msgspec.structs.replace(progress, poll_id=request.id, requested_at=request.requested_at)


# --- pages -----------------------------------------------------------------------------------


def after_page(progress: PollProgress, page: PageSummary, now_ms: int) -> PollProgress:
    """The poll after a page."""
    pages = progress.pages + 1
    first = progress.pages == 0
    skew_ms = progress.skew_ms
    if first and page.date_ms is not None:
        skew_ms = page.date_ms + page.age_ms - now_ms
    page_size = progress.page_size
    if pages % PAGES_BEFORE_LARGER == 0:
        page_size = min(PAGE_SIZE, 2 * page_size)
    return msgspec.structs.replace(
        progress,
        cursor=page.next,
        # Brent's algorithm: repeated pages lead to the cursor of a power of two again.
        landmark=page.next if pages & (pages - 1) == 0 else progress.landmark,
        phase="pages" if page.next is not None else _phase_after_pages(progress.kind),
        pages=pages,
        page_size=page_size,
        records=progress.records + page.records,
        not_live=progress.not_live + page.not_live,
        controls=controls_after(progress.controls, page.live),
        watermark=watermark_after(progress, page.date_ms, now_ms),
        skew_ms=skew_ms,
        cached_ms=page.age_ms if first else progress.cached_ms,
        nameless=progress.nameless + page.nameless,
    )


def _phase_after_pages(kind: PollKind) -> Literal["absences", "confirmation"]:
    return "absences" if kind == "full" else "confirmation"


def watermark_after(progress: PollProgress, date_ms: int | None, now_ms: int) -> int:
    """The first response's date, if the upstream's clock is behind ours, and not so far that it
    would turn deltas into full polls."""
    believed = None if progress.pages else believed_date(date_ms, now_ms)
    return progress.watermark if believed is None else min(progress.watermark, believed)


def controls_after(controls: tuple[str, ...], live: Sequence[str]) -> tuple[str, ...]:
    """The first and the last live course of a poll that can be requested, after a page with these.

    If none can be requested, they still show that the poll has read live courses.
    """
    found = [*controls, *live]
    usable = [one for one in found if can_be_asked(one)] or found
    return tuple(dict.fromkeys((*usable[:1], *usable[-1:])))


def after_changes(
    progress: PollProgress, judged: Iterable[Judgement], *, changed: dict[str, int], waiting: bool
) -> PollProgress:
    """The poll after the judgements on a page; `changed` and `waiting` are its present counts."""
    updates = [(one.course_id, one.changed) for one in judged if one.verdict is Verdict.UPDATED]
    samples = sampled(progress.samples, updates)
    return msgspec.structs.replace(progress, changed=changed, waiting=waiting, samples=samples)


# --- after the pages -------------------------------------------------------------------------


def after_absences(progress: PollProgress) -> PollProgress:
    """The poll after the search for absences."""
    return msgspec.structs.replace(progress, phase="confirmation")


def after_confirmation(progress: PollProgress) -> PollProgress:
    """The poll when no change waits."""
    return msgspec.structs.replace(progress, waiting=False)


def with_waiting(progress: PollProgress) -> PollProgress:
    """The poll when changes wait for its end."""
    return msgspec.structs.replace(progress, waiting=True)


def with_unconfirmed(progress: PollProgress, reason: Reason | None, count: int) -> PollProgress:
    """The poll with more changes that it could not confirm."""
    if reason is None or not count:
        return progress
    unconfirmed = Counter(progress.unconfirmed) + Counter({reason: count})
    return msgspec.structs.replace(progress, unconfirmed=dict(unconfirmed))


# --- commits ---------------------------------------------------------------------------------


def after_part(progress: PollProgress, events: int) -> PollProgress:
    """The poll after a commit that is not the last of its step: the step is repeated from its start
    if the rest fails."""
    return msgspec.structs.replace(
        progress, step=progress.step + 1, changes=progress.changes + events
    )


def after_commit(
    before: PollProgress,
    planned: PollProgress,
    *,
    events: int,
    verdicts: Mapping[str, int],
    now_ms: int,
) -> PollProgress:
    """The poll after the last commit of a step that leads to `planned`."""
    return msgspec.structs.replace(
        planned,
        step=before.step + 1,
        changes=before.changes + events,
        verdicts=dict(Counter(before.verdicts) + Counter(verdicts)),
        updated_at=now_ms,
        error=None,
    )


# --- incomplete texts ------------------------------------------------------------------------


def in_turn(progress: PollProgress) -> PollProgress:
    """The poll when it no longer waits for the credential's budget."""
    return msgspec.structs.replace(progress, slot=0)


def after_wait(
    progress: PollProgress, *, slot: int, reason: str | None, until_ms: int
) -> PollProgress:
    """A poll that continues at `until_ms`. Waiting for the budget does not make it older."""
    return msgspec.structs.replace(
        progress,
        slot=slot,
        error=reason,
        updated_at=max(progress.updated_at, until_ms if slot else 0),
    )


def after_error(progress: PollProgress, error: str) -> PollProgress:
    """A poll that continues unchanged after an error."""
    return msgspec.structs.replace(progress, error=error)


def restarted(progress: PollProgress) -> PollProgress:
    """A poll that starts again because its cursor was refused. Its courses so far still count."""
    return msgspec.structs.replace(
        progress, cursor=None, landmark=None, changed={}, restarts=progress.restarts + 1
    )


def with_smaller_pages(progress: PollProgress, least: int) -> PollProgress:
    """A poll that continues with pages of half the size."""
    return msgspec.structs.replace(progress, page_size=max(least, progress.page_size // 2))
