"""One turn of an integration's poll: start or resume it, read pages, find absences, end it."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence

import msgspec
from redis.exceptions import (
    ConnectionError,  # noqa: A004 - redis's own name
    OutOfMemoryError,
    RedisError,
    TimeoutError,  # noqa: A004 - redis's own name
)

from service.clients.upstream import KNOWN_CODES
from service.clock import now_ms
from service.domain.access.upstream_credential import UpstreamCredential
from service.domain.courses.change import Verdict
from service.domain.errors import (
    DecryptionError,
    EpochEndedError,
    FingerprintVersionError,
    LeaseLostError,
    NotFoundError,
    UpstreamAuthError,
    UpstreamError,
)
from service.domain.observability.metrics import POLL_DURATION, observe
from service.domain.polling.failure import PollError, after_failure
from service.domain.polling.integration import Integration, PollingState, next_poll
from service.domain.polling.notices import duration
from service.domain.polling.progress import (
    PollProgress,
    after_wait,
    begin,
    for_request,
    in_turn,
    resumable,
)
from service.domain.polling.state_change import StateChange
from service.domain.polling.triage import Held
from service.domain.polling.turn_end import after_completion, after_interruption
from service.ids import new_id
from service.logs import get_logger
from service.storage.redis.counters import field
from service.storage.scheduling.leases import Lease
from workers.context import JobContext
from workers.isolated_batch import run_isolated
from workers.polling.absences import AbsenceSearch
from workers.polling.announcements import baseline_completed, of_problem
from workers.polling.commit import Committer
from workers.polling.course_lookup import CourseLookup
from workers.polling.page_fetch import Fetcher
from workers.polling.page_reading import PageReader
from workers.polling.pages import Pages
from workers.polling.poll_dependencies import PollResources
from workers.polling.review_decision import Reviewer
from workers.polling.turn_budget import Turn, TurnOverError
from workers.polling.waiting_changes import WaitingChanges

AWAY_WAIT_MS = 1_000  # until a poll continues after Redis was unreachable
UNEXPECTED_WAIT_MS = 60_000  # until the next try after an unexpected error

_log = get_logger("poll")


async def poll_batch(context: JobContext, claims: Sequence[tuple[str, int]]) -> None:
    """Polls a batch of integrations concurrently and independently."""
    resources = PollResources.of(context)
    await run_isolated(
        _log, {owned_id: poll_one(resources, owned_id, token) for owned_id, token in claims}
    )


async def poll_one(resources: PollResources, integration_id: str, claim: int) -> None:
    """Takes one turn on an integration, unless its claim is stale or another worker has the
    lease."""
    leases = resources.leases
    lease = await leases.take("polls", integration_id, claim)
    if lease is None:
        return
    try:
        with leases.kept(lease):
            await _take_turn(resources, lease)
    except (LeaseLostError, EpochEndedError) as error:
        _log.info(
            "lease or epoch lost, poll released", integration=integration_id, reason=str(error)
        )
        await leases.drop(lease, 0)


async def _take_turn(resources: PollResources, lease: Lease) -> None:
    leases, integration_id = resources.leases, lease.owned_id
    try:
        integration, state = await resources.integrations.get(integration_id)
    except NotFoundError:
        await leases.drop(lease, None)
        return
    if integration.paused:
        await leases.drop(lease, None)
        await _wake_if_resumed(resources, integration_id)
        return
    stored = await resources.polls.progress(integration_id)
    try:
        await Poll(resources, lease, integration, state, stored).run()
    except (ConnectionError, TimeoutError):
        await leases.give_back(lease, AWAY_WAIT_MS)
        raise
    except (LeaseLostError, EpochEndedError, RedisError):
        raise  # the claim lapses
    except Exception:  # an unexpected error must not repeat at once; the job shows it
        await leases.drop(lease, UNEXPECTED_WAIT_MS)
        raise


async def _wake_if_resumed(resources: PollResources, integration_id: str) -> None:
    """An integration that was resumed while it was claimed could not be made due then."""
    (stored,) = await resources.integrations.get_many([integration_id])
    if stored is not None and not stored[0].paused:
        await resources.schedule.wake("polls", integration_id)


class Poll:
    """One turn at one integration: a whole poll, or a part of one."""

    def __init__(
        self,
        resources: PollResources,
        lease: Lease,
        integration: Integration,
        state: PollingState,
        stored: bytes,
    ) -> None:
        self._resources = resources
        self._integration = integration
        self._state = state
        self._committer = Committer(
            resources.catalogue,
            resources.polls,
            resources.matchers,
            resources.dispatcher,
            lease,
            integration,
            state,
            _progress(integration, state, stored),
            stored,
        )
        self._turn = Turn(resources.control, resources.memory, resources.draining)

    async def run(self) -> None:
        """Polls until the poll is over, the turn is over, or the upstream requests a wait."""
        started = time.monotonic()
        outcome, problem, note = "failed", None, None
        try:
            if not await self._begin():
                return
            await self._go_on()
            note = await self._complete()
            outcome = "completed"
        except TurnOverError as over:
            outcome, problem = over.outcome, over.reason if over.problem else None
            await self._interrupt(over)
        except (UpstreamError, FingerprintVersionError) as error:
            problem = str(error)
            await self._fail(error)
        except NotFoundError as error:  # deleted meanwhile
            raise EpochEndedError from error
        finally:
            progress = self._committer.progress
            quiet = (
                outcome == "completed"
                and note is None
                and progress.verdicts.keys() <= {Verdict.UNCHANGED}
            )
            (_log.warning if problem else _log.debug if quiet else _log.info)(
                "poll",
                integration=self._integration.id,
                poll=progress.poll_id,
                kind=progress.kind,
                outcome=outcome,
                pages=progress.pages,
                records=progress.records,
                verdicts=progress.verdicts,
                events=self._committer.events,
                problem=problem or note,
                seconds=round(time.monotonic() - started, 3),
            )

    # --- begin ---------------------------------------------------------------------------

    async def _begin(self) -> bool:
        """Whether there is a poll to continue; one that is too old is ended instead."""
        state, progress = self._state, self._committer.progress
        if self._committer.stored and not resumable(progress, state.epoch, now_ms()):
            await self._abandon(progress)
            return False
        await self._turn.check_memory(now_ms())
        # A full poll also answers a request for a delta.
        answers = state.requested in (progress.kind, "delta")
        if not self._committer.stored and state.requested_id is not None and answers:
            request = await self._resources.integrations.get_poll(
                self._integration.id, state.requested_id
            )
            # The poll that answers a request begins after it: other polls restart here.
            self._committer.progress = for_request(progress, request)
            await self._committer.stash(self._committer.progress)
        return True

    async def _abandon(self, progress: PollProgress) -> None:
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
            change=StateChange(),
            increments=self._poll_counters("failed"),
        )

    # --- the steps: decisions, pages, absences, waiting changes -----------------------------

    async def _go_on(self) -> None:
        async with await self._fetcher() as fetcher:
            await self._take_steps(fetcher)

    async def _take_steps(self, fetcher: Fetcher) -> None:
        resources, integration, committer = self._resources, self._integration, self._committer
        turn, state = self._turn, self._state
        integrations, catalogue, reviews = (
            resources.integrations,
            resources.catalogue,
            resources.reviews,
        )
        lookup = CourseLookup(fetcher, catalogue, integration.id, state.epoch, integration.ignored)
        await Reviewer(catalogue, reviews, integration, state, committer, lookup, turn).carry_out()
        held = Held()
        if state.held:
            held = (await reviews.get(integration.id, state.epoch)).held
        async with PageReader(catalogue, integration, state.epoch, fetcher) as reader:
            pages = Pages(catalogue, reviews, integration, state, committer, reader, turn, held)
            while committer.progress.phase == "pages":
                await pages.take_next()
        if committer.progress.phase == "absences":
            await AbsenceSearch(
                integrations, catalogue, reviews, integration, committer
            ).carry_out()
        await WaitingChanges(
            integrations, catalogue, reviews, integration, committer, lookup, turn
        ).confirm()

    async def _fetcher(self) -> Fetcher:
        """The poll's access to the upstream. It keeps the poll's slot in the queue."""
        credential, progress = await self._credential(), self._committer.progress
        self._committer.progress = in_turn(progress)
        return Fetcher(
            self._resources.upstream,
            self._resources.budgets,
            self._integration,
            credential,
            progress.kind,
            progress.slot,
            self._committer.count,
        )

    async def _credential(self) -> UpstreamCredential:
        credential_id = self._integration.credential_id
        try:
            return await self._resources.credentials.decrypt(credential_id)
        except (NotFoundError, DecryptionError) as error:
            raise UpstreamAuthError(
                f"the API key of {credential_id} cannot be read: {error}; "
                "store it again with PATCH /v1/credentials, or restore the encryption key"
            ) from error

    # --- end -----------------------------------------------------------------------------

    async def _complete(self) -> str | None:
        """Ends the poll in success; returns its note for operators."""
        now, progress = now_ms(), self._committer.progress
        # Read again, because its intervals may have been edited meanwhile.
        integration, state = await self._resources.integrations.get(self._integration.id)
        completed = after_completion(integration, state, progress, now)
        announcements = of_problem(integration, state.problem, completed.standing, completed.change)
        if completed.change.baselined is True:
            announcements.insert(0, baseline_completed(integration, state, progress))
        await self._committer.finish(
            progress.record("completed", finished_at=now, error=completed.note),
            over=True,
            wait_ms=completed.wait_ms,
            change=completed.change,
            increments=self._poll_counters("completed")
            + observe(POLL_DURATION, (now - progress.started_at) / 1000, progress.kind),
            announcements=announcements,
        )
        return completed.note

    async def _interrupt(self, over: TurnOverError) -> None:
        """Ends the turn of a poll that continues later."""
        committer = self._committer
        change, standing = after_interruption(
            self._state, over.problem, advanced=committer.advanced
        )
        # A poll that has not begun when memory is short begins when there is room.
        if committer.stored or over.problem is None:
            planned = after_wait(
                committer.progress,
                slot=over.slot,
                reason=over.reason,
                until_ms=now_ms() + over.wait_ms,
            )
            try:
                await committer.stash(planned)
            except OutOfMemoryError:
                if over.problem is None:
                    raise
        await committer.finish(
            committer.progress.record(),
            over=False,
            wait_ms=over.wait_ms,
            change=change,
            increments=Counter(),
            announcements=of_problem(self._integration, self._state.problem, standing, change),
        )

    async def _fail(self, error: PollError) -> None:
        now, progress = now_ms(), self._committer.progress
        failed = after_failure(
            self._integration,
            self._state,
            progress,
            error,
            advanced=self._committer.advanced,
            now_ms=now,
            unit_random=random.random(),
        )
        over = failed.progress is None
        if failed.progress is not None:
            await self._committer.stash(failed.progress)
        await self._committer.finish(
            progress.record("failed", finished_at=now, error=failed.error),
            over=over,
            wait_ms=failed.wait_ms,
            change=failed.change,
            increments=(self._poll_counters("failed") if over else Counter())
            + Counter([field("upstream_errors_total", code=_label(error))]),
            announcements=of_problem(
                self._integration, self._state.problem, failed.problem, failed.change
            ),
        )

    def _poll_counters(self, outcome: str) -> Counter[str]:
        kind = self._committer.progress.kind
        return Counter([field("polls_total", kind=kind, outcome=outcome)])


def _progress(integration: Integration, state: PollingState, stored: bytes) -> PollProgress:
    """The progress of the running poll, or of one that begins now."""
    if stored:
        return msgspec.json.decode(stored, type=PollProgress)
    now = now_ms()
    kind = next_poll(integration, state, now)
    return begin(new_id("poll"), kind, state.epoch, state.watermark, now)


def _label(error: PollError) -> str:
    """The label that an error is counted under. The upstream's codes are an open set, and each
    would be a permanent series: unknown codes are counted under the error's kind."""
    if isinstance(error, UpstreamError) and error.code in KNOWN_CODES:
        return error.code
    return type(error).__name__.removesuffix("Error")
