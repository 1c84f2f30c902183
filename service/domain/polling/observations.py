"""Observations of polls about an integration besides its courses, kept from poll to poll."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from service.domain.polling.flapping_paths import Flapping

UNCONFIRMED_FULL_POLLS: Final = (
    3  # consecutive full polls with unconfirmed changes until an operator must act
)

Reason = Literal[
    "cut_short",
    "control_missing",
    "no_control",
    "cannot_be_asked",
    "refused",
    "unreadable",
    "empty",
]

REASONS: Final[Mapping[Reason, str]] = {
    "cut_short": (
        "the response to a request by ids was not complete: it had a further page, or records "
        "without an id"
    ),
    "control_missing": (
        "the response to a request by ids lacked courses that the upstream had just returned"
    ),
    "no_control": "no live course could be requested beside them",
    "cannot_be_asked": (
        "neither the course id nor the remote id can be sent in a list of ids: they are missing, "
        "too long, or contain a comma, a control character, or a blank at an end"
    ),
    "refused": "the upstream refused the request by ids",
    "unreadable": ("the response to a request by ids had broken records, which may belong to them"),
    "empty": "the poll returned no live course",
}
"""Why a change that a poll found was not confirmed."""


class Observed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The observations of the latest polls. Times are epoch ms.

    `unconfirmed` counts, by reason, the changes that the last full poll could not confirm, and
    `unconfirmed_full_polls` the consecutive full polls since `unconfirmed_since` that had any;
    `nameless` counts records of the last full poll without an id; `flapping` are paths in which the
    same courses may be changing again and again; `skewed_since` is the time since which the
    upstream's clock has differed, and `cached_ms` the age of a response from a cache.
    """

    unconfirmed: dict[str, int] = {}
    unconfirmed_full_polls: int = 0
    unconfirmed_since: int | None = None
    nameless: int = 0
    nameless_since: int | None = None
    flapping: tuple[Flapping, ...] = ()
    skewed_since: int | None = None
    cached_ms: int = 0
    cached_since: int | None = None


def reasons(unconfirmed: Mapping[str, int]) -> str:
    """The numbers of unconfirmed changes by reason, in words."""
    return "; ".join(
        f"{count} because {REASONS[reason]}"
        for reason in REASONS
        if (count := unconfirmed.get(reason, 0))
    )
