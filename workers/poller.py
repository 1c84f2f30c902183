"""One walk: fetch pages, compare them, commit what changed."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Sequence

import msgspec
from redis.exceptions import RedisError

from service.bootstrap import Services
from service.clients.upstream import Page, PageQuery, UpstreamCredential
from service.clock import now_ms
from service.domain.diff import Verdict, judge_absence
from service.domain.errors import (
    EpochEndedError,
    LeaseLostError,
    NotFoundError,
    SealError,
    StaleSubscriptionsError,
    UpstreamAuthError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamInputError,
    UpstreamModelUnavailableError,
    UpstreamNotFoundError,
    UpstreamNotReadyError,
    UpstreamPageError,
    UpstreamRateLimitedError,
    UpstreamTargetRefusedError,
)
from service.domain.events import rfc3339
from service.domain.fingerprint import REMOTE_DATA_PATHS, unpack
from service.domain.integrations import (
    MODEL_PROBE_SECONDS,
    PROBE_SECONDS,
    Integration,
    Problem,
    WalkingState,
    backoff_ms,
    next_walk,
    next_walk_at,
)
from service.domain.subscriptions import Matcher
from service.domain.walking import (
    MIN_PAGE_SIZE,
    PAGE_SIZE,
    RESUMABLE_MS,
    VERIFY_BATCH,
    WalkProgress,
    begin,
    judge_page,
    resumable,
    seen_digest,
    seen_set,
    sight,
    too_many_absent,
)
from service.logs import get_logger
from service.storage.catalogue import NewEvent
from service.storage.counters import field
from service.storage.ids import new_id
from service.storage.leases import Lease
from service.storage.rate_limits import MAX_WAIT_SECONDS
from workers.committer import Committer
from workers.isolation import run_isolated
from workers.process import JobContext

LEASE_MS = 15_000
TURN_SECONDS = 20.0  # after which a walk is handed back to the schedule, to be resumed
UNEXPECTED_WAIT_MS = 60_000  # until the next try after an error that nobody foresaw
MAX_PAGES = 100_000  # pages of one walk: more is an upstream that pages in circles

BASELINE_COMPLETED = "integration.baseline_completed"
_CODE = re.compile(r"[A-Za-z_.]{1,64}")

_log = get_logger("walk")


async def poll_batch(context: JobContext, claims: Sequence[tuple[str, int]]) -> None:
    """Walks a batch of integrations concurrently; none of them disturbs another."""
    await run_isolated(
        _log, {owned_id: _poll(context, owned_id, token) for owned_id, token in claims}
    )


async def _poll(context: JobContext, integration_id: str, claim: int) -> None:
    services = context.services
    lease = await services.leases.take("walks", integration_id, claim, LEASE_MS)
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
        held = await services.rate_limits.held_ms(integration.credential_id)
        if held:
            await services.leases.drop(lease, held)
            return
        stored = await services.walks.progress(integration_id)
        walk = Walk(context, lease, integration, state, stored)
        try:
            await walk.run()
        except (LeaseLostError, EpochEndedError) as error:
            _log.info("walk given up", integration=integration_id, reason=str(error))
            await services.leases.drop(lease, 0)
        except RedisError:
            raise  # the claim lapses
        except Exception:  # whatever it is, it must not come back at once; the job shows it
            await services.leases.drop(lease, UNEXPECTED_WAIT_MS)
            raise


async def _wake_if_resumed(services: Services, integration_id: str) -> None:
    """An integration resumed while it was claimed could not be woken then."""
    (stored,) = await services.integrations.get_many([integration_id])
    if stored is not None and not stored[0].paused:
        await services.schedule.wake("walks", integration_id)


class _TurnOverError(Exception):
    """The walk is to go on in another job."""


class Walk:
    """One turn at one integration: a whole walk, or a part of one."""

    def __init__(
        self,
        context: JobContext,
        lease: Lease,
        integration: Integration,
        state: WalkingState,
        stored: bytes,
    ) -> None:
        self._context = context
        self._services = context.services
        self._integration = integration
        self._state = state
        self._ignored = frozenset(integration.ignore_paths) | (
            frozenset() if integration.track_remote_data else REMOTE_DATA_PATHS
        )
        self._committer = Committer(context, lease, integration, state, stored)
        self._ends = time.monotonic() + TURN_SECONDS

    async def run(self) -> None:
        """Walks until the walk is over, the turn is, or the upstream asks to wait."""
        started = time.monotonic()
        progress, fresh = await self._begin()
        if not fresh:
            await self._give_up(progress)
            return
        outcome, trouble = "failed", None
        try:
            credential = await self._credential()
            while not progress.pages_done:
                self._check_turn()
                progress = await self._page(credential, progress)
            if progress.kind == "sweep":
                progress, trouble = await self._absences(credential, progress)
            await self._complete(progress, trouble)
            outcome = "completed"
        except _TurnOverError:
            outcome = "yielded"
            await self._yield(progress, 0)
        except UpstreamRateLimitedError as error:
            outcome = "rate_limited"
            wait = min(error.retry_after or 1.0, MAX_WAIT_SECONDS)
            await self._services.rate_limits.hold(self._integration.credential_id, wait)
            await self._yield(progress, int(wait * 1000))
        except UpstreamError as error:
            trouble = str(error)
            await self._fail(progress, error)
        finally:
            (_log.warning if trouble else _log.info)(
                "walk",
                integration=self._integration.id,
                walk=progress.walk_id,
                kind=progress.kind,
                outcome=outcome,
                pages=progress.pages,
                records=progress.records,
                verdicts=progress.verdicts,
                events=self._committer.events,
                trouble=trouble,
                seconds=round(time.monotonic() - started, 3),
            )

    async def _begin(self) -> tuple[WalkProgress, bool]:
        """The walk to go on with, and whether it may go on."""
        state, integration = self._state, self._integration
        now = now_ms()
        if self._committer.stored:
            progress = msgspec.json.decode(self._committer.stored, type=WalkProgress)
            return progress, resumable(progress, state.epoch, now)
        kind = next_walk(integration, state, now)
        # A sweep answers a request for a delta too.
        if state.requested_id is None or state.requested not in (kind, "delta"):
            return begin(new_id("walk"), kind, state.epoch, state.watermark, now), True
        asked_for = await self._services.integrations.get_walk(integration.id, state.requested_id)
        progress = msgspec.structs.replace(
            begin(asked_for.id, kind, state.epoch, state.watermark, now),
            requested_at=asked_for.requested_at,
        )
        # A request is answered by a walk that begins after it: from here on others begin anew.
        return await self._committer.stash(progress), True

    async def _give_up(self, progress: WalkProgress) -> None:
        """Ends a walk that was broken off too long ago to be resumed."""
        await self._committer.finish(
            progress,
            progress.record("failed", finished_at=now_ms(), error="broken off, not resumed"),
            over=True,
            wait_ms=0,
            fields={},
            increments=self._walk_counters(progress, "failed"),
        )

    async def _credential(self) -> UpstreamCredential:
        try:
            opened = await self._services.credentials.open(self._integration.credential_id)
        except (NotFoundError, SealError) as error:
            raise UpstreamAuthError(
                f"the API key of {self._integration.credential_id} cannot be read: {error}; "
                "store it again with PATCH /v1/credentials, or give back the encryption key"
            ) from error
        return UpstreamCredential(base_url=opened.base_url, api_key=opened.api_key)

    def _check_turn(self) -> None:
        if self._context.draining.is_set() or time.monotonic() >= self._ends:
            raise _TurnOverError

    # --- pages ---------------------------------------------------------------------------

    async def _page(self, credential: UpstreamCredential, progress: WalkProgress) -> WalkProgress:
        if progress.pages >= MAX_PAGES:
            raise UpstreamPageError(f"the upstream pages without end: {MAX_PAGES} pages")
        query = PageQuery(
            page_size=progress.page_size,
            cursor=progress.cursor,
            updated_after=None
            if progress.updated_after is None
            else rfc3339(progress.updated_after),
            include_deleted=True,
        )
        page = await self._services.upstream.fetch_page(
            credential, self._integration.upstream_id, query
        )
        if page.next is not None and page.next == progress.cursor:
            raise UpstreamPageError("the upstream repeats the cursor it was given")
        if len(page.results) > max(PAGE_SIZE, query.page_size):
            raise UpstreamPageError(
                f"the upstream sent {len(page.results)} records where {query.page_size} were "
                "asked for"
            )
        sightings, nameless = sight(page.results)
        stored = await self._services.catalogue.read(
            self._integration.id, progress.epoch, [sighting.course_id for sighting in sightings]
        )
        judged, verdicts = judge_page(sightings, stored, self._ignored)
        verdicts[Verdict.QUARANTINED] += nameless
        live = [sighting.course_id for sighting in sightings if sighting.live]
        seen = b""
        if progress.kind == "sweep":
            seen = b"".join([seen_digest(sighting.course_id) for sighting in sightings])
        after = msgspec.structs.replace(
            progress,
            cursor=page.next,
            pages_done=page.next is None,
            pages=progress.pages + 1,
            records=progress.records + len(page.results),
            live=progress.live + len(live),
            control=live[-1] if live else progress.control,
            watermark=_watermark(progress, page),
            verdicts=_sum(progress.verdicts, verdicts),
        )
        return await self._committer.commit(progress, after, judged, seen, verdicts)

    # --- absences ------------------------------------------------------------------------

    async def _absences(
        self, credential: UpstreamCredential, progress: WalkProgress
    ) -> tuple[WalkProgress, str | None]:
        """Reports live courses that a complete sweep did not show, once asking for them by id
        has confirmed it. Returns also what was withheld, in words."""
        integration = self._integration
        seen = seen_set(await self._services.catalogue.seen(integration.id, progress.walk_id))
        absent: set[str] = set()
        live = 0
        async for course_id in self._services.catalogue.live(integration.id, progress.epoch):
            live += 1
            if seen_digest(course_id) not in seen:
                absent.add(course_id)
        if not absent:
            return progress, None
        control = progress.control
        if control is None:
            return progress, "the sweep showed no live course; nothing was deleted"
        if too_many_absent(len(absent), live):
            return progress, (
                f"{len(absent)} of {live} courses are absent from the sweep; too many to be "
                "believed, nothing was deleted"
            )
        # In a list of ids, one with a comma could not be asked for.
        missing = sorted(course_id for course_id in absent if "," not in course_id)
        for start in range(0, len(missing), VERIFY_BATCH - 1):
            batch = missing[start : start + VERIFY_BATCH - 1]
            progress = await self._verify(credential, progress, control, batch)
            if start + len(batch) < len(missing):
                self._check_turn()
        return progress, None

    async def _verify(
        self,
        credential: UpstreamCredential,
        progress: WalkProgress,
        control: str,
        course_ids: Sequence[str],
    ) -> WalkProgress:
        page = await self._services.upstream.fetch_page(
            credential,
            self._integration.upstream_id,
            PageQuery(ids=(control, *course_ids), include_deleted=True),
        )
        sightings, nameless = sight(page.results)
        shown = {sighting.course_id: sighting for sighting in sightings}
        # What was asked for counts as seen from here on, so that a resumed walk asks on.
        asked = b"".join([seen_digest(course_id) for course_id in course_ids])
        proven = control in shown and shown[control].live and page.next is None and not nameless
        if not proven:
            return await self._committer.commit(progress, progress, (), asked, Counter())
        # Read after the answer, so that nothing older is judged.
        stored = await self._services.catalogue.read(
            self._integration.id, progress.epoch, course_ids
        )
        found = [
            (shown[course_id], packed)
            for course_id, packed in zip(course_ids, stored, strict=True)
            if course_id in shown
        ]
        judged, verdicts = judge_page(
            [sighting for sighting, _ in found], [packed for _, packed in found], self._ignored
        )
        for course_id, packed in zip(course_ids, stored, strict=True):
            if course_id not in shown and packed is not None:
                judged.append((judge_absence(course_id, unpack(packed)), True))
                verdicts[Verdict.DELETED] += 1
        after = msgspec.structs.replace(progress, verdicts=_sum(progress.verdicts, verdicts))
        return await self._committer.commit(progress, after, judged, asked, verdicts)

    # --- the end of a turn ---------------------------------------------------------------

    async def _complete(self, progress: WalkProgress, note: str | None) -> None:
        now = now_ms()
        # Read again, because its intervals may have been edited meanwhile.
        integration, state = await self._services.integrations.get(self._integration.id)
        state = msgspec.structs.replace(
            state,
            last_sweep_at=now if progress.kind == "sweep" else state.last_sweep_at,
        )
        fields: dict[str, str | int | bytes] = {
            "watermark": progress.watermark,
            "failures": 0,
            "problem": "",
            f"last_{progress.kind}_at": now,
        }
        first = progress.kind == "sweep" and not state.baselined
        if first:
            fields["baselined"] = 1
        while True:
            matcher = await self._services.matchers.current(fresh=first)
            try:
                await self._committer.finish(
                    progress,
                    progress.record("completed", finished_at=now, error=note),
                    over=True,
                    wait_ms=next_walk_at(integration, state, now) - now,
                    fields=fields,
                    increments=self._walk_counters(progress, "completed")
                    + Counter([field("events_total", type=BASELINE_COMPLETED)] if first else []),
                    event=self._baseline_event(matcher, progress) if first else None,
                    subscriptions_version=matcher.version,
                )
            except StaleSubscriptionsError:
                continue
            break
        if first:
            await self._context.dispatcher.dispatch("lanes")

    def _baseline_event(self, matcher: Matcher, progress: WalkProgress) -> NewEvent:
        integration = self._integration
        facts = {
            "integration_id": integration.id,
            "upstream_id": integration.upstream_id,
            "external_id": integration.external_id,
            "labels": integration.labels,
            "baseline": integration.baseline.value,
            "records": progress.records,
        }
        return NewEvent(
            type=BASELINE_COMPLETED,
            facts=msgspec.json.encode(facts),
            order_key=integration.id,
            lanes=matcher.lanes(
                event_type=BASELINE_COMPLETED,
                integration_id=integration.id,
                labels=integration.labels,
                changed=(),
            ),
        )

    async def _yield(self, progress: WalkProgress, wait_ms: int) -> None:
        if not self._committer.stored:
            progress = await self._committer.stash(progress)
        await self._committer.finish(
            progress,
            progress.record("running"),
            over=False,
            wait_ms=wait_ms,
            fields={},
            increments=Counter(),
        )

    async def _fail(self, progress: WalkProgress, error: UpstreamError) -> None:
        now = now_ms()
        failures = self._state.failures + 1
        over, attention, wait_ms = _consequence(error, progress, failures)
        if not over:
            progress = await self._committer.stash(_adapted(progress, error))
        previous = self._state.problem
        problem = Problem(
            code=error.code or type(error).__name__.removesuffix("Error"),
            message=str(error),
            since=previous.since if previous is not None else now,
            attention=attention,
            status=error.status,
            log_url=error.log_url,
        )
        await self._committer.finish(
            progress,
            progress.record(
                "failed" if over else "running",
                finished_at=now if over else None,
                error=f"{problem.code}: {problem.message}",
            ),
            over=over,
            wait_ms=wait_ms,
            fields={"failures": failures, "problem": msgspec.json.encode(problem)},
            increments=self._walk_counters(progress, "failed")
            + Counter([field("upstream_errors_total", code=_label(problem.code))]),
        )

    def _walk_counters(self, progress: WalkProgress, outcome: str) -> Counter[str]:
        return Counter([field("walks_total", kind=progress.kind, outcome=outcome)])


def _consequence(
    error: UpstreamError, progress: WalkProgress, failures: int
) -> tuple[bool, bool, int]:
    """Whether the walk is over, whether a person must act, and how long to wait in ms."""
    if isinstance(error, UpstreamAuthError | UpstreamNotFoundError | UpstreamTargetRefusedError):
        return True, True, PROBE_SECONDS * 1000
    if isinstance(error, UpstreamModelUnavailableError):
        return True, True, MODEL_PROBE_SECONDS * 1000
    if isinstance(error, UpstreamNotReadyError):
        return True, False, PROBE_SECONDS * 1000
    wait_ms = backoff_ms(failures, random.random())
    if isinstance(error, UpstreamInputError):
        refused = progress.cursor is None or progress.restarts > 0
        return refused, False, wait_ms if refused else 0
    if isinstance(error, UpstreamBusyError) and error.retry_after is not None:
        wait_ms = max(wait_ms, int(error.retry_after * 1000))
    return now_ms() - progress.updated_at > RESUMABLE_MS, False, wait_ms


def _adapted(progress: WalkProgress, error: UpstreamError) -> WalkProgress:
    """How a walk goes on after an error: from the start where its cursor is no good any more
    (what it had seen still counts as seen), with smaller pages where one was not readable."""
    if isinstance(error, UpstreamInputError):
        return msgspec.structs.replace(progress, cursor=None, restarts=progress.restarts + 1)
    if isinstance(error, UpstreamPageError):
        smaller = max(MIN_PAGE_SIZE, progress.page_size // 2)
        return msgspec.structs.replace(progress, page_size=smaller)
    return progress


def _label(code: str) -> str:
    """The upstream's codes are an open set; what does not look like one is not worth a series."""
    return code if _CODE.fullmatch(code) else "other"


def _watermark(progress: WalkProgress, page: Page) -> int:
    """The first answer's date, if the upstream's clock is behind ours."""
    if progress.pages or page.date_ms is None:
        return progress.watermark
    return min(progress.watermark, page.date_ms)


def _sum(verdicts: dict[str, int], more: Counter[str]) -> dict[str, int]:
    total = Counter(verdicts)
    for verdict, count in more.items():
        total[str(verdict)] += count
    return {verdict: count for verdict, count in total.items() if count}
