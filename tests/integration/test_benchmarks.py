from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def measured(*arguments: str) -> dict:
    """The line of JSON that a benchmark ends with."""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.bench", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr
    result = json.loads(ran.stdout.splitlines()[-1])
    assert result["benchmark"] == arguments[0]
    assert result["machine"]["cores"] > 0
    assert set(result["versions"]) >= {"python", "valkey", "msgspec"}
    return result


def test_the_sweep_is_measured_against_plain_decoding_and_profiled():
    result = measured("sweep", "--courses", "1000", "--rounds", "1", "--profile")
    assert result["sweep_cpu_us"] > 0
    assert result["ratio"] == pytest.approx(
        result["sweep_cpu_us"] / result["decode_cpu_us"], abs=0.01
    )
    assert 1000 < result["record_bytes"] < 1500
    assert sum(result["profile_us"].values()) > 0


def test_the_memory_of_a_worker_is_measured_for_each_walk_and_size():
    walks = measured("memory", "--courses", "300")["walks"]
    assert [(walk["kind"], walk["courses"]) for walk in walks] == [
        ("baseline", 300),
        ("sweep", 300),
    ]
    assert all(walk["peak_mb"] >= walk["before_mb"] > 10 for walk in walks)


def test_the_memory_of_a_catalogue_is_measured_for_each_course():
    result = measured("catalogue", "--courses", "600")
    assert result["bytes_per_course"] > result["fingerprint_bytes"] > 0
    assert result["million_mb"] > 0


def test_listeners_are_measured():
    result = measured("listeners", "--listeners", "20", "--seconds", "0.5")
    assert result["listeners"] == 20
    assert result["event_redis_commands"] >= 1


@pytest.mark.nightly
def test_isolation_is_measured():
    result = measured("isolation", "--healthy", "2", "--dead", "1", "--seconds", "2", "--rate", "2")
    assert result["without"]["received"] == result["without"]["expected"] == 8
    assert result["with"]["received"] == 8
