"""Notices for operators about an integration whose polls succeed."""

from __future__ import annotations

from typing import Literal

import msgspec

from service.domain.polling.flapping_paths import Flapping, observe
from service.domain.polling.integration import UNCONFIRMED_CODE, Integration, PollingState, Problem
from service.domain.polling.intervals import CACHE_REPORTED_MS, MAX_SKEW_MS
from service.domain.polling.observations import UNCONFIRMED_FULL_POLLS, Observed, reasons
from service.domain.polling.progress import PollProgress

NoticeCode = Literal[
    "unconfirmed_changes", "clock_skew", "cached_answers", "flapping_path", "records_without_id"
]

_UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"), (1, "seconds"))


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """A notice for the operator. `since` is epoch ms."""

    code: NoticeCode
    message: str
    since: int


def notices(integration: Integration, state: PollingState) -> list[Notice]:
    """All notices about an integration at present."""
    observed = state.observed
    found = []
    if observed.unconfirmed and observed.unconfirmed_since is not None:
        found.append(
            Notice(
                code="unconfirmed_changes",
                message="The last full poll found changes that could not be confirmed and were "
                f"not reported: {reasons(observed.unconfirmed)}. The next full poll tries again.",
                since=observed.unconfirmed_since,
            )
        )
    if state.clock_skew_ms is not None and observed.skewed_since is not None:
        found.append(
            Notice(
                code="clock_skew",
                message=_skew(state.clock_skew_ms),
                since=observed.skewed_since,
            )
        )
    if observed.cached_ms > CACHE_REPORTED_MS and observed.cached_since is not None:
        found.append(
            Notice(
                code="cached_answers",
                message="A cache between this service and the upstream returns old responses, the "
                f"last one {duration(observed.cached_ms)} old. Exclude the upstream's API from it.",
                since=observed.cached_since,
            )
        )
    found += [
        Notice(code="flapping_path", message=_flapping(one), since=one.since)
        for one in observed.flapping
        if one.reported and one.path not in integration.ignored
    ]
    if observed.nameless and observed.nameless_since is not None:
        found.append(
            Notice(
                code="records_without_id",
                message=f"{observed.nameless} records of the last full poll have no id that can be "
                "read. They are not compared, and no event reports them.",
                since=observed.nameless_since,
            )
        )
    return found


def standing_problem(observed: Observed) -> Problem | None:
    """The problem that an operator must act on although polls succeed."""
    if (
        observed.unconfirmed_full_polls < UNCONFIRMED_FULL_POLLS
        or observed.unconfirmed_since is None
    ):
        return None
    return Problem(
        code=UNCONFIRMED_CODE,
        message=f"the last {observed.unconfirmed_full_polls} full polls found changes, such as "
        "absent courses, that could not be confirmed and were not reported; in the last one: "
        f"{reasons(observed.unconfirmed)}",
        since=observed.unconfirmed_since,
        attention=True,
    )


def observed_after(
    state: PollingState, progress: PollProgress, now: int, *, skewed: bool
) -> Observed:
    """The stored observations after a complete poll."""
    before = state.observed
    cached = progress.cached_ms > CACHE_REPORTED_MS
    after = msgspec.structs.replace(
        before,
        flapping=observe(
            before.flapping,
            progress.changed,
            progress.samples,
            live=state.course_count,
            full=progress.kind == "full",
            now_ms=now,
        ),
        skewed_since=_since(before.skewed_since, now, lasts=skewed),
        cached_ms=progress.cached_ms if cached else 0,
        cached_since=_since(before.cached_since, now, lasts=cached),
    )
    if progress.kind == "delta":
        return after
    unconfirmed = bool(progress.unconfirmed)
    return msgspec.structs.replace(
        after,
        unconfirmed=progress.unconfirmed,
        unconfirmed_full_polls=before.unconfirmed_full_polls + 1 if unconfirmed else 0,
        unconfirmed_since=_since(before.unconfirmed_since, now, lasts=unconfirmed),
        nameless=progress.nameless,
        nameless_since=_since(before.nameless_since, now, lasts=progress.nameless > 0),
    )


def _since(before: int | None, now: int, *, lasts: bool) -> int | None:
    """The start of a state that lasts, None if it does not hold."""
    return (before or now) if lasts else None


def duration(milliseconds: int) -> str:
    """A duration in words, rounded."""
    seconds = abs(milliseconds) / 1000
    size, unit = next((one for one in _UNITS if seconds >= 2 * one[0]), _UNITS[-1])
    return f"{seconds / size:.0f} {unit}"


def _skew(skew_ms: int) -> str:
    where = "ahead of" if skew_ms > 0 else "behind"
    message = (
        f"The upstream's clock (the Date of its answers) is {duration(skew_ms)} {where} this "
        "service's clock. Check both clocks, and whether a cache returns old responses."
    )
    if abs(skew_ms) <= MAX_SKEW_MS:
        return message
    return (
        f"{message} A difference of more than {MAX_SKEW_MS // 3_600_000} hours is not used: deltas "
        "go by this service's clock. If the upstream dates its records by that clock, deltas miss "
        "changes until the next full poll."
    )


def _flapping(flapping: Flapping) -> str:
    return (
        f"`{flapping.path}` changed again and again in mostly the same courses: in "
        f"{flapping.times} polls in a row, the last of which changed it in {flapping.courses} "
        "courses. If the change carries no meaning, for example a signed URL, add the path to "
        "ignore_paths."
    )
