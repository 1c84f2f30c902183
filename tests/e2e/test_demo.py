from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

_ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)")


class Demo:
    """A demo as a process, whose temporary directory is the test's own."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        environ = {name: v for name, v in os.environ.items() if not name.startswith("COURSEWIRE")}
        environ.pop("FORCE_COLOR", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "service.cli", "demo", *arguments],
            env=environ | {"TMPDIR": str(directory), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.seen = ""

    def read_until(self, text: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.seen += line
            if text in line:
                return
        pytest.fail(f"{text!r} did not come in:\n{self.seen}{self.end()[1]}")

    def end(self) -> tuple[str, str]:
        out, err = self.process.communicate(timeout=60)
        self.seen += out
        return self.seen, err

    def leftovers(self) -> list[str]:
        """Files in the temporary directory, and processes that were told of it."""
        left = [str(path) for path in self.directory.rglob("*")]
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environ = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"TMPDIR={self.directory}".encode() in environ and entry.name != str(os.getpid()):
                left.append((entry / "cmdline").read_bytes().decode(errors="replace"))
        return left


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    return temporary


@pytest.fixture
def start(directory: Path) -> Iterator[Callable[..., Demo]]:
    started: list[Demo] = []

    def start_one(*arguments: str) -> Demo:
        started.append(Demo(directory, *arguments))
        return started[-1]

    yield start_one
    for demo in started:
        if demo.process.poll() is None:
            demo.process.kill()
        demo.process.communicate()


def test_it_ends_by_itself_after_ten_events_that_agree(start: Callable[..., Demo]) -> None:
    demo = start("--events", "10")
    out, err = demo.end()
    assert demo.process.returncode == 0, out + err
    assert out.count("✓ event") >= 10
    assert "in full agreement" in out
    for kind in ("created", "updated", "deleted"):
        assert re.search(rf"✓ event +{kind}", out), out
    for name in ("API", "docs", "metrics", "token"):
        assert re.search(rf"^ +{name} ", out, re.MULTILINE), out
    assert "\x1b" not in out
    assert demo.leftovers() == []


def test_it_gives_the_reason_when_the_events_do_not_come_in_time(
    start: Callable[..., Demo],
) -> None:
    demo = start("--events", "100000", "--timeout", "5")
    out, err = demo.end()
    assert demo.process.returncode == 1, out + err
    assert re.search(r"coursewire: within 5 s .+\n$", err)
    assert "the end of the log" in err
    assert "Traceback" not in err
    assert demo.leftovers() == []


def test_a_signal_while_it_starts_leaves_nothing_behind(start: Callable[..., Demo]) -> None:
    demo = start()
    demo.read_until("Starting")
    demo.process.send_signal(signal.SIGINT)
    out, err = demo.end()
    assert demo.process.returncode == 0, out + err
    assert err == ""
    assert demo.leftovers() == []


def test_a_signal_ends_it_cleanly_and_what_it_said_was_reachable_was(
    start: Callable[..., Demo],
) -> None:
    import httpx

    demo = start()
    demo.read_until("✓ event")
    places = dict(re.findall(r"^ +(\w+) +(\S+)", demo.seen, re.MULTILINE))
    token = Path(places["token"]).read_text().strip()
    with httpx.Client(headers={"authorization": f"Bearer {token}"}, trust_env=False) as client:
        for name, path in (("API", "/integrations"), ("docs", ""), ("metrics", "")):
            answer = client.get(f"{places[name]}{path}")
            assert answer.status_code == 200, (name, answer.text)
        assert 'coursewire_events_total{type="course.updated"}' in answer.text
        assert client.get(places["sandbox"]).json()[0]["changes"] > 0
        console, _, given = places["console"].partition("#token=")
        assert given == token
        assert "<title>Coursewire" in client.get(console).text
    assert Path(places["log"]).read_text() != ""
    demo.process.send_signal(signal.SIGTERM)
    out, err = demo.end()
    assert demo.process.returncode == 0, out + err
    assert re.search(r"\d+ events verified, none at odds", out)
    assert err == ""
    assert demo.leftovers() == []


def test_it_keeps_away_from_a_database_that_holds_data(
    directory: Path, valkey_url: str, valkey_admin_url: str
) -> None:
    from redis import Redis

    with Redis.from_url(valkey_admin_url.replace("/0", "/5")) as redis:
        redis.set("somebody", "else")
    environ = os.environ | {"COURSEWIRE_REDIS_URL": valkey_url.replace("/0", "/5")}
    done = subprocess.run(
        [sys.executable, "-m", "service.cli", "demo"],
        env=environ | {"TMPDIR": str(directory)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "contains data" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(directory.iterdir()) == []
