"""Short runs of chaos for every change, long ones for every night."""

from __future__ import annotations

from collections import Counter

import click
import pytest

from tests.chaos.answers import HOSTILE as ANSWERS
from tests.chaos.checker import check
from tests.chaos.plan import HOSTILE, named, plan
from tests.chaos.run import Options, run
from tests.chaos.upstream import KINDS

pytestmark = pytest.mark.slow

# Few that hold a whole outbox, for outboxes are long.
DELIVERY_MIX = {"ok": 92.0, "error": 3.0, "overload": 0.4, "hang": 0.6, "reset": 4.0}


def test_the_same_seed_gives_the_same_plan():
    assert plan(7, 60) == plan(7, 60) != plan(8, 60)
    assert {step.do for step in plan(1, 60, only=("kill worker",))} == {"kill worker"}
    assert {step.do for step in plan(1, 60, only=named("hostile"))} == set(HOSTILE)


@pytest.mark.parametrize(
    ("do", "kinds"), [("hostile upstream", KINDS), ("hostile receiver", ANSWERS)]
)
def test_each_kind_of_malice_strikes_several_times_in_ten_minutes(do, kinds):
    for seed in range(5):
        struck = Counter(int(step.target) % len(kinds) for step in plan(seed, 600) if step.do == do)
        assert min(struck[kind] for kind in range(len(kinds))) >= 5


@pytest.mark.timeout(240)
async def test_some_seconds_of_chaos_lose_and_invent_nothing(tmp_path):
    history = await run(Options(seed=3, seconds=25, courses=60), tmp_path, click.echo)
    report = check(history)
    assert report.sound, report.complaints
    assert report.counts["receipts"] > 500
    for peer in ("upstream", "receiver"):
        struck = sum(count for who, count in history.struck.items() if who.endswith(peer))
        assert struck >= 5, history.struck


@pytest.mark.nightly  # the test above kills workers too
@pytest.mark.timeout(240)
async def test_outboxes_end_complete_and_in_order_while_workers_are_killed(tmp_path):
    options = Options(
        seed=5,
        seconds=120,
        integrations=1,
        courses=100,
        subscribers=5,
        rounds=2,
        only=("kill worker",),
        mix=DELIVERY_MIX,
    )
    report = check(await run(options, tmp_path, click.echo))
    assert report.sound, report.complaints
    assert report.counts["changes"] == 200
    assert report.counts["receipts"] > 1_500


@pytest.mark.nightly
@pytest.mark.timeout(3600)
async def test_twenty_outboxes_of_five_thousand_courses_end_complete_and_in_order(tmp_path):
    options = Options(
        seed=20,
        seconds=3000,
        integrations=1,
        courses=5_000,
        subscribers=20,
        rounds=3,
        only=("kill worker",),
        mix=DELIVERY_MIX,
    )
    report = check(await run(options, tmp_path, click.echo))
    assert report.sound, report.complaints
    assert report.counts["changes"] == 15_000
    click.echo(report.summary())
