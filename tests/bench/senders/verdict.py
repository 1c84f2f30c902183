"""What became of the events: what was lost, came twice or out of order, and how long it took."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from itertools import pairwise

import msgspec

from tests.bench.senders.traffic import Mark, Publication, Receipt


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Counts are of deliveries: an event to one destination. Times are ms, silence seconds."""

    expected: int
    lost: int  # never received
    lost_acknowledged: int  # of these, whose event had been acknowledged
    duplicates: int  # received again under the same id
    renamed: int  # received again under another id
    invented: int  # received without having been sent
    disordered: int  # first received after a later event of the same object
    attempts: int
    refused: int  # attempts that the receiver answered with 500
    first: float  # when the first event was accepted
    last: float  # when the last delivery was first received
    accepted_per_second: float
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    silence: float  # the longest time between two first receipts

    @property
    def rate(self) -> float:
        """Deliveries a second, from the first acceptance to the last receipt."""
        return (self.expected - self.lost) / max(self.last - self.first, 1e-9)


def judge(
    receipts: Iterable[Receipt],
    publications: Mapping[Mark, Publication],
    sent: Iterable[Mark],
    hosts: Iterable[int],
) -> Verdict:
    """Compares what the hosts received with what was sent to each of them.

    An event is accepted when its publication says, or where there is none, because a poll detected
    it, at the time that its body gives.
    """
    expected = set(sent)
    chosen = set(hosts)
    firsts: dict[tuple[int, Mark], Receipt] = {}
    newest: defaultdict[tuple[int, int], int] = defaultdict(int)
    counts: Counter[str] = Counter()
    ids: set[tuple[int, str]] = set()
    for one in sorted(receipts, key=lambda receipt: receipt.at):
        if one.host not in chosen:
            continue
        counts["attempts"] += 1
        if not one.accepted:
            counts["refused"] += 1
            continue
        known = (one.host, one.id) in ids
        ids.add((one.host, one.id))
        if one.mark not in expected:
            counts["invented"] += 1
        elif (one.host, one.mark) in firsts:
            counts["duplicates" if known else "renamed"] += 1
        else:
            firsts[one.host, one.mark] = one
            lane = one.host, one.mark[0]
            counts["disordered"] += one.mark[1] < newest[lane]
            newest[lane] = max(newest[lane], one.mark[1])
    missing = [mark for mark in expected for host in chosen if (host, mark) not in firsts]
    accepted = _acceptances(firsts.values(), publications)
    moments = sorted(one.at for one in firsts.values())
    latencies = sorted(
        (one.at - accepted[one.mark]) * 1000 for one in firsts.values() if one.mark in accepted
    )
    began, ended = min(accepted.values(), default=0.0), max(accepted.values(), default=0.0)
    return Verdict(
        expected=len(expected) * len(chosen),
        lost=len(missing),
        lost_acknowledged=sum(_acknowledged(publications.get(mark)) for mark in missing),
        **{
            name: counts[name]
            for name in (
                *("duplicates", "renamed", "invented", "disordered", "attempts", "refused"),
            )
        },
        first=began,
        last=moments[-1] if moments else began,
        accepted_per_second=round(len(accepted) / max(ended - began, 1e-3), 1),
        p50_ms=quantile(latencies, 0.5),
        p99_ms=quantile(latencies, 0.99),
        max_ms=quantile(latencies, 1.0),
        silence=round(max((b - a for a, b in pairwise(moments)), default=0.0), 2),
    )


def quantile(ordered: list[float], share: float) -> float | None:
    """The least value that so large a share of the ordered values does not exceed."""
    if not ordered:
        return None
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], 2)


def _acceptances(
    firsts: Iterable[Receipt], publications: Mapping[Mark, Publication]
) -> dict[Mark, float]:
    if publications:
        return {mark: one.acknowledged for mark, one in publications.items()}
    return {one.mark: one.detected for one in firsts}


def _acknowledged(publication: Publication | None) -> bool:
    """Whether the sender took responsibility: what no publisher sent, a poll found."""
    return publication is None or publication.status < 300
