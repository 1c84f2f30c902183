from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.scale import SCENES, check_room
from tests.bench.sweepers import followed

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium")
ROOT = Path(__file__).parents[3]


def measured(*arguments: str, seconds: float = 60) -> dict:
    """The line of JSON that a benchmark ends with."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    assert result["benchmark"] == arguments[0]
    assert result["machine"]["cores"] > 0
    assert set(result["versions"]) >= {"python", "valkey", "msgspec"}
    return result


def test_the_full_poll_is_measured_against_plain_decoding_and_profiled():
    result = measured("sweep", "--courses", "1000", "--rounds", "1", "--profile")
    assert result["full_cpu_us"] > 0
    assert result["ratio"] == pytest.approx(
        result["full_cpu_us"] / result["decode_cpu_us"], abs=0.01
    )
    assert 1000 < result["record_bytes"] < 1500
    assert result["ratio_floor"] > 1
    assert sum(result["profile_us"].values()) > 0


def test_a_full_poll_of_edited_courses_is_measured_and_profiled():
    result = measured("edits", "--courses", "600", "--rounds", "2")
    assert result["wall_us"] > result["cpu_us"] > 0
    assert result["redis_cpu_us"] > 0
    assert sum(result["profile_us"].values()) > 0


def test_the_memory_of_a_worker_is_measured_for_each_poll_and_size():
    polls = measured("memory", "--courses", "300")["polls"]
    assert [(poll["kind"], poll["courses"]) for poll in polls] == [
        ("baseline", 300),
        ("full", 300),
    ]
    assert all(poll["peak_mb"] >= poll["before_mb"] > 10 for poll in polls)


def test_the_memory_of_a_catalogue_is_measured_for_each_course():
    result = measured("catalogue", "--courses", "600")
    assert result["bytes_per_course"] > result["fingerprint_bytes"] > 0
    assert result["million_mb"] > 0


def test_what_the_console_asks_for_is_timed():
    result = measured("console", "--rounds", "1", "--integrations", "20", "--events", "600")
    assert len(result["requests_ms"]) > 30
    assert all(median > 0 for median, *_ in result["requests_ms"].values())
    assert {"sign-in form, empty cache"} <= result["first_view_ms"].keys() or not CHROMIUM


def test_the_api_is_measured_against_a_bare_handler():
    result = measured(
        "api", "--rounds", "1", "--seconds", "0.2", "--connections", "2", "--deliveries", "1000"
    )
    assert max(longest for _, longest in result["deliveries_ms"].values()) > 0
    assert result["body_bytes"] > 400
    assert min(result["api_per_second"], result["bare_per_second"], result["ratio"]) > 0


def test_listeners_are_measured():
    result = measured("listeners", "--listeners", "20", "--seconds", "0.5")
    assert result["listeners"] == 20
    assert result["event_redis_commands"] >= 1


def test_those_that_full_poll_are_measured_and_judged():
    result = measured(
        *("sweepers", "--courses", "300", "--rounds", "2"),
        *("--contenders", "decoding", "ours", "nango"),
    )
    found = {(one["by"], one["step"]): one for one in result["full_polls"]}
    assert len(found) == 3 * 6
    for one in found.values():
        assert one["requests"] >= 2
        assert one["cpu_most"] >= one["cpu"] >= one["cpu_least"] > 0
    assert found["ours", "1%"]["rounds"] == 2
    assert found["ours", "1%"]["redis_mb"] > 0
    for step in ("0%", "1%", "100%", "touched", "shifted"):
        ours = found["ours", step]
        assert (ours["missed"], ours["false"], ours["duplicate"]) == (0, 0, 0), step
    # Those who look worse do so for a reason, or the comparison would prove nothing.
    assert found["nango", "1%"]["missed"] == 0
    assert found["nango", "touched"]["false"] > 290
    assert found["nango", "shifted"]["false"] == 20


def test_who_did_not_full_poll_in_between_is_to_report_how_it_came_out():
    before = {"a": "created", "b": "created", "c": "updated", "d": "deleted", "e": "updated"}
    later = {"a": "updated", "b": "deleted", "c": "deleted", "f": "created"}
    assert followed(before, later) == {
        "a": "created",
        "c": "deleted",
        "d": "deleted",
        "e": "updated",
        "f": "created",
    }


def test_how_full_polls_grow_with_worker_processes_is_measured():
    result = measured(
        *("growth", "--integrations", "2", "--courses", "3000", "--rounds", "1"),
        *("--workers", "1", "2"),
    )
    assert list(result["by_worker_processes"]) == ["1", "2"]
    for one in result["by_worker_processes"].values():
        assert one["least"] == one["courses_per_second"] == one["most"] > 0
        assert one["cpu_us_per_record"] > 0


def test_deliveries_are_measured_against_the_bare_loop_and_a_job_for_each():
    result = measured(
        *("delivery", "--events", "60", "--subscriptions", "3", "--rounds", "1"),
        *("--seconds", "0.4", "--workers", "--peer-deliveries", "5"),
    )
    runs = result["runs"]
    assert all(one["rate"] > 0 for one in runs.values())
    assert result["ratios"]["verifying, many"]["all"] == [
        pytest.approx(
            runs["ours, verifying, many"]["rate"] / runs["bare, verifying, many"]["rate"], abs=0.01
        )
    ]
    assert result["peer_ratios"]["rq simple, verifying, many"] == pytest.approx(
        runs["ours, verifying, many"]["rate"] / runs["rq simple, verifying, many"]["rate"], rel=0.05
    )
    assert all(one["p99_ms"] >= one["p50_ms"] > 0 for one in result["latency"])


def test_deliveries_are_measured_by_concurrency_and_number_of_subscriptions():
    result = measured(
        *("concurrency", "--deliveries", "40", "--rounds", "1"),
        *("--subscriptions", "1", "4", "--concurrency", "1", "8"),
    )
    cells = [(one["subscriptions"], one["max_concurrency"]) for one in result["cells"]]
    assert cells == [(1, 1), (1, 8), (4, 1), (4, 8)]
    assert all(one["per_second"] > 0 for one in result["cells"])


def test_the_largest_installations_are_measured_in_each_scene():
    # Six installations are started one after the other.
    scenes = measured("scale", "--factor", "1e-7", "--seconds", "1", seconds=180)["scenes"]
    assert scenes.keys() == SCENES.keys()
    steps = [step for sizes in scenes.values() for steps in sizes.values() for step in steps]
    assert len(steps) == 3 + 4 + 6 + 3 + 3 + 2
    assert all(step["seconds"] > 0 and step["items"] > 0 for step in steps)


def test_a_scene_that_does_not_fit_is_refused_with_the_size_that_does():
    with pytest.raises(SystemExit, match=r"10,000,000 courses .* 11\.6 GB of .* 1,041,666"):
        check_room("courses", 10_000_000, memory=3_000_000_000, disk=10**15)
    check_room("courses", 1_041_666, memory=3_000_000_000, disk=10**15)
    with pytest.raises(SystemExit, match="of disk"):
        check_room("courses", 1_041_666, memory=3_000_000_000, disk=10**9)


@pytest.mark.parametrize("scene", ["many", "kill"])
def test_senders_are_loaded_and_judged(scene):
    """Ours alone: the peers are not installed with the project."""
    result = measured(
        *("senders", "--system", "coursewire", "--settings", "defaults", "--rounds", "1"),
        *("--scene", scene, "--events", "300", "--destinations", "3", "--settle", "0"),
    )
    assert (result["left_out"], result["failures"]) == ([], [])
    assert result["upstream_courses_per_second"] > 0
    found = result["scenes"][scene]
    assert found["limit_per_second"] > 0
    ((outcome,),) = (one["rounds"] for one in found["systems"])
    verdict = outcome["verdict"]
    assert verdict["expected"] == 300
    assert [verdict[one] for one in ("lost", "renamed", "invented", "disordered")] == [0, 0, 0, 0]
    assert verdict["p99_ms"] >= verdict["p50_ms"] > 0
    assert outcome["cpu_seconds"] > 0
    assert outcome["peak_mb"] > 50


@pytest.mark.nightly
def test_the_lag_of_polls_is_measured():
    result = measured(
        *("scheduling", "--integrations", "20", "--interval", "5", "--seconds", "6"),
        *("--idle-seconds", "2"),
    )
    assert result["never_polled"] == 0
    assert result["watched"] >= 20
    assert 0 <= result["lag_p50_ms"] <= result["lag_p99_ms"]
    assert result["idle"]["sent"] > 0


@pytest.mark.nightly
def test_starting_is_measured():
    result = measured("start", "--rounds", "1")
    assert result["seconds"] > 0
    assert result["installed_mb"] > 10
    assert result["packages"] > 20


@pytest.mark.nightly
def test_isolation_is_measured():
    result = measured(
        *("isolation", "--healthy", "2", "--dead", "1", "--seconds", "2", "--rate", "2"),
        *("--rounds", "1"),
    )
    assert result["without"]["received"] == result["without"]["expected"] == 8
    assert result["with"]["received"] == 8
    assert result["p99_ratios"] == [
        pytest.approx(result["with"]["p99_ms"] / result["without"]["p99_ms"], abs=0.01)
    ]
