"""An outbox that grew long while its endpoint was down."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import House, Subscriber, until

pytestmark = pytest.mark.slow

MOST_RESIDENT = 200_000_000  # bytes of a worker process, whatever waits on outboxes


def most_resident(house: House) -> int:
    """The most memory that the worker had so far, in bytes."""
    status = Path(f"/proc/{house.processes['worker'].pid}/status")
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


async def shown(house: House) -> dict:
    return await house.call("GET", f"/v1/subscriptions/{house.subscription_id}")


async def holds(house: House, count: int, seconds: float) -> None:
    async def held() -> bool:
        return (await shown(house))["pending"] == count

    await until(held, seconds=seconds, what=f"{count} pending\n{house.logs()}")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told by Linux alone")
@pytest.mark.parametrize(
    ("courses", "until_parked"),
    [
        pytest.param(1_500, False, marks=pytest.mark.timeout(180), id="short"),
        pytest.param(
            50_000, True, marks=[pytest.mark.nightly, pytest.mark.timeout(1200)], id="long"
        ),
    ],
)
async def test_a_long_outbox_costs_a_worker_no_memory_and_is_drained_in_order(
    build_house, subscriber: Subscriber, courses: int, until_parked: bool
):
    """Two events of each course wait while the endpoint is down; then all of them arrive."""
    house: House = await build_house(courses)
    subscriber.down = True
    await house.subscribe(subscriber, timeout_seconds=3)
    await house.register(
        baseline="emit",
        delta_interval_seconds=3600,
        full_interval_seconds=86_400,
        guards={"changed_share": 1},
    )
    await holds(house, courses, 300)
    await house.change({"op": "edit", "all": True})
    await house.poll("delta", seconds=300)
    await holds(house, 2 * courses, 300)
    if until_parked:

        async def parked() -> bool:
            return (await shown(house))["state"] == "parked"

        await until(parked, seconds=300, what=f"a parked outbox\n{house.logs()}")
    assert subscriber.received == []
    assert most_resident(house) < MOST_RESIDENT

    subscriber.down = False
    await house.call("POST", f"/v1/subscriptions/{house.subscription_id}/resume")
    await house.drained(seconds=600)
    assert subscriber.types() == {"course.created": courses, "course.updated": courses}
    subscriber.check_order()
    assert subscriber.conflicts == []
    assert (await shown(house))["state"] == "active"
    assert most_resident(house) < MOST_RESIDENT
