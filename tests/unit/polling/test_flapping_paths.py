"""Paths in which the same courses change again and again are told from normal life."""

from __future__ import annotations

import random

import msgspec
import pytest

from service.domain.polling.flapping_paths import SAMPLE, Flapping, observe, same_share, sampled

URL = "revisions.remote_url"
TITLE = "revisions.title"


class Polls:
    """What is remembered from poll to poll."""

    def __init__(self, live: int = 1_000) -> None:
        self.live = live
        self.known: tuple[Flapping, ...] = ()
        self.now = 0

    def poll(self, *, full: bool = False, **changed: list[int]) -> list[str]:
        """A poll that changed these courses in `url` and `title`; returns what is reported."""
        self.now += 1
        paths = {"url": URL, "title": TITLE}
        samples: dict[str, tuple[int, ...]] = {}
        for name, courses in changed.items():
            for start in range(0, len(courses), 7):  # a page at a time, in any order
                page = [(f"c{number}", [paths[name]]) for number in courses[start : start + 7]]
                samples = sampled(samples, page)
        counts = {paths[name]: len(courses) for name, courses in changed.items() if courses}
        self.known = observe(
            self.known, counts, samples, live=self.live, full=full, now_ms=self.now
        )
        return [one.path for one in self.known if one.reported]


FIFTY = list(range(50))


@pytest.mark.parametrize("full", [True, False])
def test_what_changes_at_three_polls_in_a_row_is_reported(full):
    polls = Polls()
    assert polls.poll(url=FIFTY, full=full) == []
    assert polls.poll(url=FIFTY[::-1], full=full) == []
    assert polls.poll(url=FIFTY, full=full) == [URL]
    (known,) = polls.known
    assert (known.times, known.courses, known.since) == (3, 50, 1)


def test_deltas_without_a_change_in_between_are_nothing_against_it():
    """The upstream itself looks every few hours, deltas every minute."""
    polls = Polls()
    for _ in range(3):
        polls.poll(url=FIFTY)
        for _ in range(200):
            polls.poll()
        polls.poll(full=True)
    assert [one.path for one in polls.known if one.reported] == [URL]


@pytest.mark.parametrize("live", [60, 1_000, 100_000])
def test_it_is_reported_though_some_of_the_courses_differ(live):
    polls, chance = Polls(live), random.Random(7)
    for _ in range(5):
        polls.poll(url=[number for number in range(60) if chance.random() < 0.9])
    assert [one.path for one in polls.known if one.reported] == [URL]


def test_beside_it_other_paths_are_judged_by_themselves():
    polls = Polls()
    for start in (0, 100, 200):
        assert TITLE not in polls.poll(url=FIFTY, title=list(range(start, start + 50)))
    assert [one.path for one in polls.known if one.reported] == [URL]


def test_a_catalogue_of_few_courses_is_told_of_too():
    polls = Polls(live=8)
    for _ in range(3):
        polls.poll(url=list(range(6)))
    assert [one.path for one in polls.known if one.reported] == [URL]


def test_it_is_over_after_three_full_polls_without_another_change():
    polls = Polls()
    for _ in range(3):
        polls.poll(url=FIFTY, full=True)
    assert polls.poll(full=True) == polls.poll() == polls.poll(full=True) == [URL]
    assert polls.poll(full=True) == []
    assert polls.known == ()


# --- normal life --------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.05, 0.2])
def test_other_courses_at_each_poll_are_normal(share):
    chance = random.Random(share)
    for _ in range(20):
        polls = Polls()
        for _ in range(30):
            changed = chance.sample(range(1_000), int(share * 1_000))
            assert polls.poll(title=changed, full=chance.random() < 0.1) == []


@pytest.mark.parametrize("count", [1, 5, 19])
def test_few_courses_that_change_all_the_time_are_normal(count):
    polls = Polls()
    for _ in range(50):
        assert polls.poll(title=list(range(count)), full=True) == []


def test_a_great_change_and_its_correction_are_normal():
    polls = Polls()
    assert polls.poll(title=FIFTY) == []
    assert polls.poll(title=FIFTY) == []
    assert polls.poll(url=FIFTY, full=True) == []
    assert polls.poll(title=list(range(500))) == []


def test_a_change_that_goes_through_the_catalogue_is_normal():
    polls = Polls()
    for start in range(0, 1_000, 50):
        assert polls.poll(title=list(range(start, start + 50))) == []


def test_the_same_change_now_and_then_is_normal():
    polls = Polls()
    for _ in range(5):
        assert polls.poll(title=FIFTY) == []
        for _ in range(3):
            assert polls.poll(full=True) == []


# --- what is kept ---------------------------------------------------------------------------------


def test_what_is_kept_does_not_grow_with_the_catalogue():
    polls = Polls(100_000)
    polls.poll(url=list(range(50_000)), title=list(range(50_000)))
    assert all(len(one.sample) == SAMPLE for one in polls.known)
    assert len(msgspec.json.encode(polls.known)) < 1_000


def test_samples_compare_like_the_sets_they_are_of():
    def sample(courses) -> tuple[int, ...]:
        return sampled({}, [(f"c{number}", ["p"]) for number in courses])["p"]

    assert same_share(sample(range(50)), sample(range(50))) == 1
    assert same_share(sample(range(50)), sample(range(50, 100))) == 0
    assert same_share(sample(range(3)), sample(range(1, 4))) == 0.5
    assert same_share((), ()) == 0
