"""Asks the upstream for single courses by id, and judges what it says of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from service.clients.upstream import PageQuery
from service.clock import now_ms
from service.domain.deletion import told_time
from service.domain.fingerprint import unpack
from service.domain.sifting import Judged
from service.domain.walking import judge_page, sight, unread
from service.storage.catalogue import Catalogue
from workers.fetching import Fetcher

MOST_IDS = 100  # asked for at once, the controls included


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the upstream said of some courses.

    `judged` are those it showed changed, `shown` all that it showed; `missing` those it
    surely did not show, with what is known of them; the answer is `whole` if it says so and every
    record of it can be told; `controls_live` is how many of the controls came back live.
    """

    judged: list[Judged]
    shown: frozenset[str]
    missing: dict[str, bytes]
    whole: bool
    controls_live: int


class Inquiry:
    """Asks about courses of one integration's epoch."""

    def __init__(
        self,
        fetcher: Fetcher,
        catalogue: Catalogue,
        integration_id: str,
        epoch: str,
        ignored: Collection[str],
    ) -> None:
        self._fetcher = fetcher
        self._catalogue = catalogue
        self._integration_id = integration_id
        self._epoch = epoch
        self._ignored = ignored

    async def ask(self, course_ids: Sequence[str], controls: Sequence[str]) -> Answer:
        """Asks for courses, and for `controls` that are known to be live, without which a
        missing course proves nothing. Raises what `Fetcher.page` raises."""
        page = await self._fetcher.page(
            PageQuery(ids=(*controls, *course_ids), include_deleted=True)
        )
        judged_at = told_time(now_ms(), page.date_ms)
        sightings, nameless = sight(page.results, judged_at)
        shown = {sighting.course_id: sighting for sighting in sightings}
        # Read after the answer, so that nothing older is judged.
        stored = await self._catalogue.read(self._integration_id, self._epoch, course_ids)
        pairs = list(zip(course_ids, stored, strict=True))
        judged, _ = judge_page(
            [shown[course_id] for course_id, _ in pairs if course_id in shown],
            [packed for course_id, packed in pairs if course_id in shown],
            self._ignored,
            judged_at,
        )
        doubtful = unread(sightings)
        return Answer(
            judged=judged,
            shown=frozenset(shown),
            missing={
                course_id: packed
                for course_id, packed in pairs
                if course_id not in shown
                and packed is not None
                and not unpack(packed).deleted
                and course_id not in doubtful
            },
            whole=page.next is None and not nameless,
            controls_live=sum(control in shown and shown[control].live for control in controls),
        )
