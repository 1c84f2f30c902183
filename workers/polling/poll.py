"""One turn at an integration: fetch pages, compare them, commit what changed."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    OutOfMemoryError,
    RedisError,
    TimeoutError,  # noqa: A004 - redis's own name
)

from service.bootstrap import Services
from service.clients.upstream import KNOWN_CODES, Page, PageQuery, UpstreamCredential
from service.clock import now_ms
from service.domain.courses.change import Verdict
from service.domain.courses.deletion_mark import told_time
from service.domain.errors import (
    CoursesDifferError,
    DecryptionError,
    EpochEndedError,
    FingerprintVersionError,
    LeaseLostError,
    NotFoundError,
    UpstreamAuthError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamInputError,
    UpstreamModelUnavailableError,
    UpstreamNotFoundError,
    UpstreamNotReadyError,
    UpstreamPageError,
    UpstreamPagingError,
    UpstreamTargetRefusedError,
    UpstreamUnavailableError,
)
from service.domain.events.event import rfc3339
from service.domain.events.operational import Announcement, When, of_integration
from service.domain.observability.metrics import POLL_DURATION, observe
from service.domain.polling.flapping_paths import sampled
from service.domain.polling.id_requests import ends
from service.domain.polling.integration import (
    FULL_RETRY_SECONDS,
    MAX_BACKOFF_SECONDS,
    MODEL_PROBE_SECONDS,
    PROBE_SECONDS,
    SKEW_REPORTED_MS,
    UNREADABLE_MS,
    Integration,
    PollingState,
    Problem,
    backoff_ms,
    believed_date,
    next_poll,
    next_poll_at,
    next_try_ms,
)
from service.domain.polling.notices import duration, observed_after, standing_problem
from service.domain.polling.observations import Observed, reasons
from service.domain.polling.progress import (
    FULL_PATIENCE_MS,
    MIN_PAGE_SIZE,
    MIN_UNREADABLE_PAGE_SIZE,
    PAGE_SIZE,
    RESUMABLE_MS,
    PageDigests,
    PollProgress,
    begin,
    controls_after,
    count_others,
    digest_page,
    distinct,
    identify_records,
    judge_page,
    resumable,
    seen_digest,
    shown_live,
    sorted_digests,
)
from service.domain.polling.triage import Held, Judged, Sieve, Sifted
from service.ids import new_id
from service.logs import get_logger
from service.storage.redis.counters import field
from service.storage.scheduling.leases import Lease
from workers.context import JobContext
from workers.isolated_batch import run_isolated
from workers.polling.commit import Committer, Portion
from workers.polling.course_lookup import Inquiry
from workers.polling.page_fetch import Fetcher
from workers.polling.review_decision import Reviewer
from workers.polling.settlement import Settling
from workers.polling.turn_budget import Turn, TurnOverError

LEASE_MS = 15_000
AWAY_WAIT_MS = 1_000  # until a poll that Redis has failed goes on, once Redis is back
PAGES_BEFORE_LARGER = 10  # pages between two attempts at larger ones
UNEXPECTED_WAIT_MS = 60_000  # until the next try after an error that nobody foresaw
MAX_PAGES = 100_000  # pages of one poll: more is an upstream that pages without end

LAPS_FROM_PAGES = 16  # at which, and at each doubling, a full poll is looked at for laps

BASELINE_COMPLETED = "integration.baseline_completed"
TROUBLED = "integration.error"
RECOVERED = "integration.recovered"

_log = get_logger("poll")


async def poll_batch(context: JobContext, claims: Sequence[tuple[str, int]]) -> None:
    """Polls a batch of integrations concurrently; none of them disturbs another."""
    await run_isolated(
        _log, {owned_id: _poll(context, owned_id, token) for owned_id, token in claims}
    )


async def _poll(context: JobContext, integration_id: str, claim: int) -> None:
    services = context.services
    lease = await services.leases.take("polls", integration_id, claim, LEASE_MS)
    if lease is None:
        return
    async with services.leases.kept(lease):
        try:
            integration, state = await services.integrations.get(integration_id)
        except NotFoundError:
            await services.leases.drop(lease, None)
            return
        if integration.paused:
            await services.leases.drop(lease, None)
            await _wake_if_resumed(services, integration_id)
            return
        stored = await services.polls.progress(integration_id)
        poll = Poll(context, lease, integration, state, stored)
        try:
            await poll.run()
        except (LeaseLostError, EpochEndedError) as error:
            _log.info("poll given up", integration=integration_id, reason=str(error))
            await services.leases.drop(lease, 0)
        except (ConnectionError, TimeoutError):
            await services.leases.give_back(lease, AWAY_WAIT_MS)
            raise
        except RedisError:
            raise  # the claim lapses
        except Exception:  # whatever it is, it must not come back at once; the job shows it
            await services.leases.drop(lease, UNEXPECTED_WAIT_MS)
            raise


async def _wake_if_resumed(services: Services, integration_id: str) -> None:
    """An integration resumed while it was claimed could not be woken then."""
    (stored,) = await services.integrations.get_many([integration_id])
    if stored is not None and not stored[0].paused:
        await services.schedule.wake("polls", integration_id)


class Poll:
    """One turn at one integration: a whole poll, or a part of one."""

    def __init__(
        self,
        context: JobContext,
        lease: Lease,
        integration: Integration,
        state: PollingState,
        stored: bytes,
    ) -> None:
        self._context = context
        self._services = context.services
        self._integration = integration
        self._state = state
        self._ignored = integration.ignored
        if stored:
            progress = msgspec.json.decode(stored, type=PollProgress)
        else:
            now = now_ms()
            kind = next_poll(integration, state, now)
            progress = begin(new_id("poll"), kind, state.epoch, state.watermark, now)
        self._committer = Committer(context, lease, integration, state, progress, stored)
        self._turn = Turn(context)
        self._held = Held()

    async def run(self) -> None:
        """Polls until the poll is over, the turn is, or the upstream asks to wait."""
        started = time.monotonic()
        outcome, trouble, note = "failed", None, None
        try:
            if not await self._begin():
                return
            await self._go_on()
            note = await self._complete()
            outcome = "completed"
        except TurnOverError as over:
            outcome, trouble = over.outcome, over.reason if over.problem else None
            await self._yield(over)
        except (UpstreamError, FingerprintVersionError) as error:
            trouble = str(error)
            await self._fail(error)
        except NotFoundError as error:  # deleted meanwhile
            raise EpochEndedError from error
        finally:
            progress = self._committer.progress
            (_log.warning if trouble else _log.info)(
                "poll",
                integration=self._integration.id,
                poll=progress.poll_id,
                kind=progress.kind,
                outcome=outcome,
                pages=progress.pages,
                records=progress.records,
                verdicts=progress.verdicts,
                events=self._committer.events,
                trouble=trouble or note,
                seconds=round(time.monotonic() - started, 3),
            )

    async def _begin(self) -> bool:
        """Whether there is a poll to go on with; one that is too old is ended instead."""
        state, progress = self._state, self._committer.progress
        if self._committer.stored:
            if resumable(progress, state.epoch, now_ms()):
                await self._turn.check_memory(now_ms())
                return True
            last = "" if progress.error is None else f"; the last error: {progress.error}"
            passed = duration(now_ms() - progress.updated_at)
            await self._committer.finish(
                progress.record(
                    "failed",
                    finished_at=now_ms(),
                    error=f"not resumed after {passed} without a page{last}",
                ),
                over=True,
                wait_ms=0,
                fields={},
                increments=self._poll_counters("failed"),
            )
            return False
        await self._turn.check_memory(now_ms())
        # A full poll answers a request for a delta too.
        if state.requested_id is not None and state.requested in (progress.kind, "delta"):
            asked_for = await self._services.integrations.get_poll(
                self._integration.id, state.requested_id
            )
            # A request is answered by a poll that begins after it: others begin anew from here.
            self._committer.progress = msgspec.structs.replace(progress, poll_id=asked_for.id)
            await self._committer.stash(requested_at=asked_for.requested_at)
        return True

    async def _go_on(self) -> None:
        services, integration, committer = self._services, self._integration, self._committer
        progress = committer.progress
        fetcher = Fetcher(
            services.upstream,
            services.budgets,
            integration,
            await self._credential(),
            progress.kind,
            progress.slot,
            committer.count,
        )
        committer.progress = msgspec.structs.replace(progress, slot=0)
        inquiry = Inquiry(
            fetcher, services.catalogue, integration.id, progress.epoch, self._ignored
        )
        reviewer = Reviewer(services, integration, self._state, committer, inquiry, self._turn)
        await reviewer.carry_out()
        if self._state.held:
            self._held = (await services.reviews.get(integration.id, progress.epoch)).held
        while committer.progress.phase == "pages":
            await self._turn.check(now_ms())
            await self._page(fetcher)
        settling = Settling(services, integration, committer, inquiry, self._turn)
        if committer.progress.phase == "absences":
            await settling.find_absences()
        await settling.settle()

    async def _credential(self) -> UpstreamCredential:
        try:
            opened = await self._services.credentials.decrypt(self._integration.credential_id)
        except (NotFoundError, DecryptionError) as error:
            raise UpstreamAuthError(
                f"the API key of {self._integration.credential_id} cannot be read: {error}; "
                "store it again with PATCH /v1/credentials, or give back the encryption key"
            ) from error
        return UpstreamCredential(base_url=opened.base_url, api_key=opened.api_key)

    # --- pages ---------------------------------------------------------------------------

    async def _page(self, fetcher: Fetcher) -> None:
        progress = self._committer.progress
        if progress.pages >= MAX_PAGES:
            raise UpstreamPagingError(f"the upstream pages without end: {MAX_PAGES} pages")
        await self._check_laps(progress)
        query = PageQuery(
            page_size=progress.page_size,
            cursor=progress.cursor,
            updated_after=None
            if progress.updated_after is None
            else rfc3339(progress.updated_after),
            include_deleted=True,
        )
        page = await fetcher.page(query)
        _check_page(progress, page)
        records, known = page.results, list[bytes]()
        quiet = self._state.baselined and not self._state.held and not progress.waiting
        if quiet and (seen := digest_page(page.results)) is not None:
            differing = await self._commit_if_known(page, seen)
            if not differing:
                return
            records = [page.results[index] for index in differing]
            left = set(differing)
            known = [one for index, one in enumerate(seen.course_ids) if index not in left]
        await self._commit_judged(page, records, known)

    async def _commit_if_known(self, page: Page, seen: PageDigests) -> list[int]:
        """Commits a page that shows live courses as they are known; else nothing, and returns
        which of its records are to be looked at."""
        portion = Portion(
            expected=seen,
            unchanged=len(page.results),
            seen=self._seen(seen.course_ids),
            is_page=True,
        )
        moved = self._moved(page, ends(seen.course_ids))
        try:
            await self._committer.commit(portion, **moved)
        except CoursesDifferError as error:
            return error.indexes
        return []

    async def _commit_judged(
        self, page: Page, records: list[msgspec.Raw], known: list[bytes]
    ) -> None:
        """Commits a page of which some `records` may be news and the `known` courses are live
        and unchanged."""
        progress = self._committer.progress
        judged_at = told_time(now_ms(), page.date_ms)
        records_seen, nameless = identify_records(records, judged_at)
        course_ids = [seen_record.course_id for seen_record in records_seen]
        stored = await self._services.catalogue.read(
            self._integration.id, progress.epoch, course_ids
        )
        judged, unchanged = judge_page(records_seen, stored, self._ignored, judged_at)
        live = shown_live(records_seen, stored, judged)
        sifted = await self._sift(page, judged, course_ids, live)
        moved = self._moved(page, [*ends(known), *live])
        moved["others"] += count_others(records_seen, live, judged)
        changes = [
            (one.judgement.course_id, one.judgement.changed)
            for one in judged
            if one.judgement.verdict is Verdict.UPDATED
        ]
        await self._committer.commit(
            Portion(
                judged=sifted.flowing,
                marks=sifted.marks,
                unchanged=unchanged + len(known),
                nameless=nameless,
                seen=self._seen([*known, *(one.encode() for one in course_ids)]),
                is_page=True,
            ),
            **moved,
            changed=sifted.changed,
            samples=sampled(progress.samples, changes) if self._state.baselined else {},
            nameless=progress.nameless + nameless,
            waiting=sifted.waiting,
        )

    def _seen(self, course_ids: Iterable[bytes]) -> bytes:
        if self._committer.progress.kind == "delta":
            return b""
        return b"".join([seen_digest(course_id) for course_id in course_ids])

    def _moved(self, page: Page, live: Sequence[str]) -> dict[str, Any]:
        """Where the poll stands after a page on which these courses, or some more between the
        first and the last of them, are live."""
        progress = self._committer.progress
        pages = progress.pages + 1
        skew_ms = progress.skew_ms
        if progress.pages == 0 and page.date_ms is not None:
            skew_ms = page.date_ms + page.age_ms - now_ms()
        phase = "pages"
        if page.next is None:
            phase = "absences" if progress.kind == "full" else "settling"
        return {
            "cursor": page.next,
            # Brent's algorithm: a poll in circles meets the cursor of a power of two again.
            "landmark": page.next if pages & (pages - 1) == 0 else progress.landmark,
            "phase": phase,
            "pages": pages,
            # After smaller pages it tries its luck again.
            "page_size": progress.page_size
            if pages % PAGES_BEFORE_LARGER
            else min(PAGE_SIZE, 2 * progress.page_size),
            "records": progress.records + len(page.results),
            "others": progress.others,
            "controls": controls_after(progress.controls, live),
            "watermark": _watermark(progress, page),
            "skew_ms": skew_ms,
            "cached_ms": progress.cached_ms if progress.pages else page.age_ms,
        }

    async def _check_laps(self, progress: PollProgress) -> None:
        """Raises UpstreamPagingError where a full poll is shown the same courses over and over,
        under cursors that are new each time: what it has seen would fill Redis."""
        pages = progress.pages
        if progress.kind != "full" or pages < LAPS_FROM_PAGES or pages & (pages - 1):
            return
        seen = sorted_digests(
            await self._services.catalogue.seen(self._integration.id, progress.poll_id)
        )
        # A poll that began anew because of its cursor has seen everything twice.
        if len(seen) > 3 * distinct(seen):
            raise UpstreamPagingError("the upstream pages without end: the same courses come again")

    async def _sift(
        self, page: Page, judged: list[Judged], course_ids: list[str], live: list[str]
    ) -> Sifted:
        progress, integration, state = self._committer.progress, self._integration, self._state
        if not state.baselined:  # what nobody knows of yet needs no guard
            return Sifted(flowing=judged, marks=[], waiting=progress.waiting, changed={})
        held = (
            await self._services.reviews.held(integration.id, progress.epoch, course_ids)
            if state.held
            else {}
        )
        sieve = Sieve(
            guards=integration.guards,
            kind=progress.kind,
            changed=progress.changed,
            waiting=progress.waiting,
            seen=progress.records + len(page.results),
            live=state.course_count,
            held=self._held,
            last=page.next is None,
        )
        return sieve.sift(judged, live, held)

    # --- the end of a turn ---------------------------------------------------------------

    async def _complete(self) -> str | None:
        """Ends the poll well; returns what people should know of it all the same."""
        now, progress = now_ms(), self._committer.progress
        # Read again, because its intervals may have been edited meanwhile.
        integration, state = await self._services.integrations.get(self._integration.id)
        note = _note(integration, state, progress)
        if progress.kind == "full":
            state = msgspec.structs.replace(state, last_full_at=now, full_retry_at=None)
        skewed = progress.skew_ms is not None and abs(progress.skew_ms) > SKEW_REPORTED_MS
        observed = observed_after(state, progress, now, skewed=skewed)
        fields: dict[str, str | int | bytes] = {
            "watermark": progress.watermark,
            "failures": 0,
            "full_retry_at": state.full_retry_at or "",
            "clock_skew_ms": progress.skew_ms if skewed and progress.skew_ms else "",
            f"last_{progress.kind}_at": now,
            "observed": b"" if observed == Observed() else msgspec.json.encode(observed),
        }
        standing = standing_problem(observed)
        if standing is not None:
            fields["problem"] = msgspec.json.encode(standing)
        elif state.full_retry_at is None:  # else it is what full polls fail with, and they still do
            fields["problem"] = ""
        first = progress.kind == "full" and not state.baselined
        if first:
            fields["baselined"] = 1
        said = {
            "baseline": integration.baseline.value,
            "records": progress.records,
            "epoch": progress.epoch,
            "previous_epoch": state.previous_epoch,
        }
        await self._committer.finish(
            progress.record("completed", finished_at=now, error=note),
            over=True,
            wait_ms=next_poll_at(integration, state, now) - now,
            fields=fields,
            increments=self._poll_counters("completed")
            + observe(POLL_DURATION, (now - progress.started_at) / 1000, progress.kind),
            announcements=[
                *([of_integration(integration, BASELINE_COMPLETED, said)] if first else []),
                *_told(integration, state.problem, standing, fields),
            ],
        )
        return note

    async def _yield(self, over: TurnOverError) -> None:
        now = now_ms()
        # A wait that was asked for does not make the poll any older.
        fresh_at = max(self._committer.progress.updated_at, now + over.wait_ms if over.slot else 0)
        fields: dict[str, str | int | bytes] = {}
        standing = standing_problem(self._state.observed)
        if self._committer.moved:
            fields = {"failures": 0}
            if (
                self._state.full_retry_at is None
            ):  # what kept it is over; else full polls still fail
                fields["problem"] = b"" if standing is None else msgspec.json.encode(standing)
        known = standing if "problem" in fields else self._state.problem
        # To wait for memory does not mean that nobody need act any more.
        if over.problem is not None and not (known is not None and known.attention):
            fields["problem"] = msgspec.json.encode(_lasting(known, over.problem))
        # A poll that has not begun when memory is short begins when there is room.
        if self._committer.stored or over.problem is None:
            try:
                await self._committer.stash(slot=over.slot, error=over.reason, updated_at=fresh_at)
            except OutOfMemoryError:
                if over.problem is None:
                    raise
        await self._committer.finish(
            self._committer.progress.record(),
            over=False,
            wait_ms=over.wait_ms,
            fields=fields,
            increments=Counter(),
            announcements=_told(self._integration, self._state.problem, standing, fields),
        )

    async def _fail(self, error: UpstreamError | FingerprintVersionError) -> None:
        now, progress = now_ms(), self._committer.progress
        # Failures now and then do not add up while a poll gets on between them.
        again = isinstance(error, UpstreamBusyError | UpstreamUnavailableError | UpstreamPageError)
        failures = 1 if again and self._committer.moved else self._state.failures + 1
        # Deltas wait while a full poll is tried again; a baseline has none to wait.
        full_polling = progress.kind == "full" and self._state.baselined
        patience_ms = FULL_PATIENCE_MS if full_polling else RESUMABLE_MS
        over, attention, wait_ms = _consequence(error, progress, failures, patience_ms)
        known = self._state.problem
        found = _problem(error, now, attention=attention)
        told = f"{found.code}: {found.message}"
        if again and over:
            told += _given_up(error, progress, now, patience_ms)
        problem = _lasting(known, found)
        if isinstance(error, UpstreamPageError):
            problem, wait_ms = _unreadable(known, problem, now, wait_ms)
        # That the upstream fails does not mean that nobody need act any more.
        standing = standing_problem(self._state.observed)
        if again and not self._committer.moved and known is not None and known.attention:
            problem = known
        elif again and not problem.attention and standing is not None:
            problem = standing
        fields: dict[str, str | int | bytes] = {
            "failures": failures,
            "problem": msgspec.json.encode(problem),
        }
        if over and full_polling and not attention:
            retry_seconds = min(FULL_RETRY_SECONDS, self._integration.full_interval_seconds)
            fields["full_retry_at"] = now + retry_seconds * 1000
            # A delta has waited for the full poll long enough.
            delta_ms = self._integration.delta_interval_seconds * 1000
            wait_ms = _asked_ms(error) if again else min(wait_ms, delta_ms)
        if not over:
            await self._committer.stash(error=told, **_adapted(progress, error))
        await self._committer.finish(
            progress.record("failed", finished_at=now, error=told),
            over=over,
            wait_ms=wait_ms,
            fields=fields,
            increments=(self._poll_counters("failed") if over else Counter())
            + Counter([field("upstream_errors_total", code=_label(error))]),
            announcements=[_trouble(self._integration, problem)]
            if problem.attention
            else _recovery(self._integration, known, fields),
        )

    def _poll_counters(self, outcome: str) -> Counter[str]:
        kind = self._committer.progress.kind
        return Counter([field("polls_total", kind=kind, outcome=outcome)])


def _check_page(progress: PollProgress, page: Page) -> None:
    if page.next is not None and page.next in (progress.cursor, progress.landmark):
        raise UpstreamPagingError("the upstream pages in circles: a cursor came back")
    if len(page.results) > max(PAGE_SIZE, progress.page_size):
        raise UpstreamPageError(
            f"the upstream sent {len(page.results)} records where {progress.page_size} were "
            "asked for"
        )


def _note(integration: Integration, state: PollingState, progress: PollProgress) -> str | None:
    notes = []
    if progress.unconfirmed:
        notes.append(
            f"{sum(progress.unconfirmed.values())} changes could not be confirmed and were not "
            f"reported: {reasons(progress.unconfirmed)}"
        )
    if progress.nameless:
        notes.append(f"{progress.nameless} records without an id were skipped")
    if state.held:
        notes.append(
            f"{state.held} changes are held until they are decided on: "
            f"GET /v1/integrations/{integration.id}/review"
        )
    return "; ".join(notes) or None


def _problem(
    error: UpstreamError | FingerprintVersionError, now: int, *, attention: bool
) -> Problem:
    name = type(error).__name__.removesuffix("Error")
    if isinstance(error, FingerprintVersionError):
        return Problem(code=name, message=str(error), since=now, attention=attention)
    return Problem(
        code=error.code or name,
        message=str(error),
        since=now,
        attention=attention,
        status=error.status,
        log_url=error.log_url,
        elsewhere=error.elsewhere,
    )


def _trouble(integration: Integration, problem: Problem) -> Announcement:
    """What is told when a person comes to be needed."""
    said = {
        "code": problem.code,
        "message": problem.message,
        "status": problem.status,
        "log_url": problem.log_url,
        "since": rfc3339(problem.since),
    }
    return of_integration(integration, TROUBLED, said, When.TROUBLED)


def _told(
    integration: Integration,
    known: Problem | None,
    standing: Problem | None,
    fields: Mapping[str, str | int | bytes],
) -> list[Announcement]:
    """What is told where polls go on: that a person is needed for what they come through, or is
    needed no more."""
    if standing is None:
        return _recovery(integration, known, fields)
    return [_trouble(integration, standing)] if fields.get("problem") else []


def _recovery(
    integration: Integration,
    known: Problem | None,
    fields: Mapping[str, str | int | bytes],
) -> list[Announcement]:
    """What is told when a person is needed no more: where `fields` put another problem, or none,
    in the slot of such a one."""
    if known is None or not known.attention or "problem" not in fields:
        return []
    said = {"code": known.code, "since": rfc3339(known.since)}
    return [of_integration(integration, RECOVERED, said, When.UNTROUBLED)]


def _lasting(previous: Problem | None, problem: Problem) -> Problem:
    """The problem, since the first failure in a row."""
    since = previous.since if previous is not None else problem.since
    return msgspec.structs.replace(problem, since=since)


def _unreadable(
    known: Problem | None, problem: Problem, now: int, wait_ms: int
) -> tuple[Problem, int]:
    """The problem that a page cannot be read, and the wait: a person is told when it lasts, and no
    later because of a backoff."""
    left = problem.since + UNREADABLE_MS - now
    if left > 0:
        return problem, min(wait_ms, max(left, 1000))
    lasts = known is not None and known.code == problem.code
    return msgspec.structs.replace(problem, attention=lasts), wait_ms


def _consequence(
    error: UpstreamError | FingerprintVersionError,
    progress: PollProgress,
    failures: int,
    patience_ms: int,
) -> tuple[bool, bool, int]:
    """Whether the poll is over, whether a person must act, and how long to wait in ms."""
    if isinstance(
        error,
        FingerprintVersionError
        | UpstreamAuthError
        | UpstreamNotFoundError
        | UpstreamTargetRefusedError,
    ):
        return True, True, PROBE_SECONDS * 1000
    if isinstance(error, UpstreamModelUnavailableError):
        return True, True, MODEL_PROBE_SECONDS * 1000
    if isinstance(error, UpstreamNotReadyError):
        return True, False, PROBE_SECONDS * 1000
    wait_ms = backoff_ms(failures, random.random())
    if isinstance(error, UpstreamPagingError):
        return True, False, wait_ms
    if isinstance(error, UpstreamInputError):
        refused = progress.cursor is None or progress.restarts > 0
        return refused, False, wait_ms if refused else 0
    asked_ms = _asked_ms(error)
    left_ms = progress.updated_at + patience_ms - now_ms()
    next_ms = next_try_ms(wait_ms, asked_ms, left_ms)
    return next_ms is None, False, max(wait_ms, asked_ms) if next_ms is None else next_ms


def _asked_ms(error: Exception) -> int:
    """How long the upstream asked to be left alone, as far as that is believed."""
    asked = error.retry_after if isinstance(error, UpstreamError) else None
    return 0 if asked is None else int(min(asked, MAX_BACKOFF_SECONDS) * 1000)


def _given_up(error: Exception, progress: PollProgress, now: int, patience_ms: int) -> str:
    """Why a poll is given up, in words."""
    passed = now - progress.updated_at
    if (asked_ms := _asked_ms(error)) > patience_ms - passed >= 1_000:
        return (
            f"; given up: the upstream asks for a wait of {duration(asked_ms)}, longer than what "
            f"is left of {duration(patience_ms)}"
        )
    return f"; given up after {duration(passed)} without a page"


def _adapted(progress: PollProgress, error: Exception) -> dict[str, Any]:
    """How a poll goes on after an error: from the start where its cursor is no good any more
    (what it had seen still counts as seen), with smaller pages where one did not arrive."""
    if isinstance(error, UpstreamInputError):
        return {"cursor": None, "landmark": None, "changed": {}, "restarts": progress.restarts + 1}
    if isinstance(error, UpstreamPageError):  # down to the one record that cannot be read
        return {"page_size": max(MIN_UNREADABLE_PAGE_SIZE, progress.page_size // 2)}
    if isinstance(error, UpstreamUnavailableError):
        return {"page_size": max(MIN_PAGE_SIZE, progress.page_size // 2)}
    return {}


def _label(error: UpstreamError | FingerprintVersionError) -> str:
    """What an error is counted under. The upstream's codes are an open set, and each would be a
    series for ever: those that are not known go by what they were taken for."""
    if isinstance(error, UpstreamError) and error.code in KNOWN_CODES:
        return error.code
    return type(error).__name__.removesuffix("Error")


def _watermark(progress: PollProgress, page: Page) -> int:
    """The first answer's date, if the upstream's clock is behind ours, and not by so much that it
    would turn deltas into full polls."""
    date_ms = None if progress.pages else believed_date(page.date_ms, now_ms())
    return progress.watermark if date_ms is None else min(progress.watermark, date_ms)
