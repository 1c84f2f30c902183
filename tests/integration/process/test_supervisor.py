from __future__ import annotations

import asyncio
import io
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from service.domain.errors import StartError
from service.local.data_directory import DataDirectory
from service.local.embedded_valkey import free_port
from service.local.supervisor.child import restart_delay
from service.local.supervisor.output import console_sink, json_sink
from service.local.supervisor.outside_redis import redis_fault
from service.local.supervisor.programs import Program
from service.local.supervisor.supervisor import Supervisor
from service.local.supervisor.up import curl_line
from service.settings import Settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
REDIS_URL = "redis://127.0.0.1:1/0"  # nothing in these tests connects to it

# Says its pid, then notes in a file when it is told to stop.
POLITE = """
import os, signal, sys, time
def stop(*_):
    time.sleep(float(sys.argv[3]))
    with open(sys.argv[1], "a") as file:
        file.write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("pid", os.getpid(), flush=True)
while True:
    signal.pause()
"""

DEAF = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("pid", os.getpid(), flush=True)
while True:
    signal.pause()
"""

API = """
import asyncio, os
async def answer(reader, writer):
    await reader.readline()
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    writer.close()
async def serve():
    server = await asyncio.start_server(answer, "127.0.0.1", int(os.environ["COURSEWIRE_PORT"]))
    print("pid", os.getpid(), flush=True)
    await server.serve_forever()
asyncio.run(serve())
"""


class Lines(list):
    """A sink that keeps what it is given."""

    def __call__(self, name: str, line: str) -> None:
        self.append((name, line))

    def of(self, name: str) -> list[str]:
        return [line for who, line in self if who == name]

    def pids(self, name: str) -> list[int]:
        return [int(line.split()[1]) for line in self.of(name) if line.startswith("pid ")]


@pytest.fixture
def lines() -> Lines:
    return Lines()


def program(name: str, source: str, *arguments: object, **fields) -> Program:
    return Program(
        name=name,
        argv=(sys.executable, "-c", source, *map(str, arguments)),
        **{"stop_order": 1, **fields},
    )


def supervisor(tmp_path: Path, lines: Lines, *programs: Program, **settings) -> Supervisor:
    settings = {"data_dir": tmp_path / "data", "port": 0, "redis_url": REDIS_URL, **settings}
    return Supervisor(Settings(**settings), programs, sink=lines)


async def until(condition: Callable[[], object], *, every: float = 0.01) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - other processes set no events
            await asyncio.sleep(every)


def alive_in_group(group: int) -> bool:
    """Whether any process of the group runs; one that waits to be reaped does not."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pgid=,stat="], check=True, capture_output=True, text=True
    ).stdout
    return any(
        int(found) == group and not state.startswith("Z")
        for found, state in (line.split() for line in listed.splitlines())
    )


# --- restarts -----------------------------------------------------------------------------------


def test_the_delay_doubles_from_one_second_to_thirty():
    assert [restart_delay(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert restart_delay(10_000) == 30


async def test_a_crashed_program_is_started_again(tmp_path, lines, monkeypatch):
    monkeypatch.setattr("service.local.supervisor.child.RESTART_FIRST_SECONDS", 0.01)
    source = "import os, sys; print('pid', os.getpid(), flush=True); sys.exit(3)"
    async with supervisor(tmp_path, lines, program("x", source)):
        await until(lambda: len(lines.pids("x")) >= 3)
    assert len(set(lines.pids("x"))) == len(lines.pids("x"))


async def test_a_killed_program_is_started_again(tmp_path, lines, monkeypatch):
    monkeypatch.setattr("service.local.supervisor.child.RESTART_FIRST_SECONDS", 0.01)
    async with supervisor(tmp_path, lines, program("x", DEAF, drain_seconds=0)) as running:
        await until(lambda: lines.pids("x"))
        first = running.pids()["x"]
        assert lines.pids("x") == [first]
        os.kill(first, signal.SIGKILL)
        await until(lambda: len(lines.pids("x")) == 2)
        assert running.pids()["x"] == lines.pids("x")[1]


async def test_failures_in_a_row_are_forgotten_after_a_stable_run(tmp_path, lines, monkeypatch):
    monkeypatch.setattr("service.local.supervisor.child.RESTART_FIRST_SECONDS", 0.01)
    monkeypatch.setattr("service.local.supervisor.child.STABLE_SECONDS", 0.0)
    async with supervisor(tmp_path, lines, program("x", "print('pid 1')")) as running:
        await until(lambda: len(lines.pids("x")) >= 4)
        assert running.children[0].failures <= 1


async def test_a_program_that_is_not_there_does_not_hold_up_the_others(tmp_path, lines):
    absent = Program(name="absent", argv=("/nonexistent/program",), stop_order=1)
    async with supervisor(tmp_path, lines, absent, program("x", DEAF, drain_seconds=0)):
        await until(lambda: lines.pids("x") and lines.of("absent"))
    assert "/nonexistent/program" in lines.of("absent")[0]


async def test_what_a_crashed_program_left_behind_is_ended(tmp_path, lines):
    source = f"""
import os, subprocess, sys
left = subprocess.Popen([sys.executable, "-c", {DEAF!r}], stdout=subprocess.PIPE)
left.stdout.readline()
print("pid", os.getpid(), flush=True)
os.kill(os.getpid(), 9)
"""
    async with supervisor(tmp_path, lines, program("x", source)):
        await until(lambda: lines.pids("x"))
        await until(lambda: not alive_in_group(lines.pids("x")[0]), every=0.1)


# --- stopping -----------------------------------------------------------------------------------


async def test_programs_stop_in_order_each_group_waiting_for_the_one_before(tmp_path, lines):
    log = tmp_path / "log"
    async with supervisor(
        tmp_path,
        lines,
        program("last", POLITE, log, "last", 0, stop_order=3),
        program("slow", POLITE, log, "slow", 0.3, stop_order=1),
        program("fast", POLITE, log, "fast", 0, stop_order=1),
        program("next", POLITE, log, "next", 0, stop_order=2),
    ):
        await until(lambda: all(lines.pids(name) for name in ("last", "slow", "fast", "next")))
    assert log.read_text().split() == ["fast", "slow", "next", "last"]


async def test_a_program_that_does_not_drain_in_time_is_killed(tmp_path, lines):
    async with supervisor(tmp_path, lines, program("x", DEAF, drain_seconds=0.1)):
        await until(lambda: lines.pids("x"))
    await until(lambda: not alive_in_group(lines.pids("x")[0]), every=0.1)


async def test_hurrying_kills_everything_at_once(tmp_path, lines):
    running = supervisor(
        tmp_path,
        lines,
        program("a", DEAF, drain_seconds=1000),
        program("b", DEAF, drain_seconds=1000, stop_order=2),
    )
    async with running:
        await until(lambda: lines.pids("a") and lines.pids("b"))
        stop = asyncio.create_task(running.stop())
        await until(running.children[0].stopping.is_set)
        running.hurry()
        await asyncio.wait_for(stop, 30)
    await until(lambda: not alive_in_group(lines.pids("a")[0]), every=0.1)
    await until(lambda: not alive_in_group(lines.pids("b")[0]), every=0.1)


async def test_stopping_does_not_wait_for_a_backoff(tmp_path, lines, monkeypatch):
    monkeypatch.setattr("service.local.supervisor.child.RESTART_MAX_SECONDS", 1000.0)
    monkeypatch.setattr("service.local.supervisor.child.RESTART_FIRST_SECONDS", 1000.0)
    async with supervisor(tmp_path, lines, program("x", "print('pid 1')")) as running:
        await until(lambda: running.children[0].failures == 1)
        async with asyncio.timeout(30):
            await running.stop()


# --- start --------------------------------------------------------------------------------------


async def test_it_is_ready_once_the_api_says_so(tmp_path, lines):
    async with supervisor(tmp_path, lines, program("api", API)) as running:
        assert running.settings.port > 0
        await running.ready(30)


async def test_waiting_for_readiness_may_be_limited(tmp_path, lines):
    async with supervisor(tmp_path, lines) as running:
        with pytest.raises(StartError, match=r"/readyz did not return 200 within 0\.1 s"):
            await running.ready(0.1)


async def test_programs_get_the_completed_settings_and_nothing_unknown(
    tmp_path, lines, monkeypatch
):
    monkeypatch.setenv("COURSEWIRE_STRAY", "1")
    show = "import os; print({k: v for k, v in os.environ.items() if k.startswith('COURSEWIRE_')})"
    shown = program("x", show, environment={"COURSEWIRE_LOG_LEVEL": "debug"})
    async with supervisor(tmp_path, lines, shown) as running:
        await until(lambda: lines.of("x"))
        environment = eval(lines.of("x")[0])
        assert environment.pop("COURSEWIRE_LOG_LEVEL") == "debug"
        assert Settings.from_env(environment) == running.settings
        assert running.settings.admin_token
        assert running.settings.encryption_keys


async def test_secrets_are_made_once_and_kept_private(tmp_path, lines):
    async with supervisor(tmp_path, lines) as running:
        first = running.settings
        token_file = running.token_file
    assert token_file.read_text().strip() == first.admin_token
    for name in ("admin-token", "encryption-keys"):
        assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600
    async with supervisor(tmp_path, lines) as running:
        assert running.settings.admin_token == first.admin_token
        assert running.settings.encryption_keys == first.encryption_keys


async def test_secrets_of_the_environment_are_used_and_not_written(tmp_path, lines):
    given = {"admin_token": "a-token-of-the-admin", "encryption_keys": (bytes(32),)}
    async with supervisor(tmp_path, lines, **given) as running:
        assert running.settings.admin_token == "a-token-of-the-admin"
        assert running.token_file is None
        assert "$COURSEWIRE_ADMIN_TOKEN" in curl_line(running)
    assert not (tmp_path / "data" / "admin-token").exists()
    assert not (tmp_path / "data" / "encryption-keys").exists()


async def test_a_secret_that_others_could_read_is_made_private_again(tmp_path, lines):
    async with supervisor(tmp_path, lines) as running:
        path = running.token_file
    path.chmod(0o644)
    async with supervisor(tmp_path, lines):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_an_unusable_secret_file_is_refused_by_name(tmp_path, lines):
    async with supervisor(tmp_path, lines) as running:
        path = running.token_file
    path.write_text("short\n")
    with pytest.raises(StartError, match=r"secret in .* not usable: COURSEWIRE_ADMIN_TOKEN has 5"):
        await supervisor(tmp_path, lines).start()
    path.write_text("\n")
    with pytest.raises(StartError, match="admin-token is empty"):
        await supervisor(tmp_path, lines).start()


async def test_data_without_its_keys_is_refused_rather_than_given_new_ones(tmp_path, lines):
    async with supervisor(tmp_path, lines, redis_url=None):
        pass
    (tmp_path / "data" / "encryption-keys").unlink()
    with pytest.raises(StartError, match="set that to the keys used before"):
        await supervisor(tmp_path, lines, redis_url=None).start()


async def test_a_taken_port_is_refused_in_one_line_before_anything_starts(tmp_path, lines):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StartError) as caught:
            await supervisor(tmp_path, lines, port=port).start()
    assert str(caught.value) == (
        f"port {port} on 127.0.0.1 is in use; set COURSEWIRE_PORT to another, or to 0 "
        "for any free one"
    )
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["lock"]


async def test_a_second_start_on_the_directory_names_the_first_rather_than_the_port(
    tmp_path, lines
):
    async with supervisor(tmp_path, lines, program("api", API)) as running:
        await running.ready(30)
        with pytest.raises(StartError, match=f"is in use by process {os.getpid()}; stop that one"):
            await supervisor(tmp_path, lines, port=running.settings.port).start()


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("redis://me:hush@127.0.0.1:1/0", "127.0.0.1:1 does not answer (Connection refused)"),
        ("rediss://:hush@localhost:1", "localhost:1 does not answer (Connection refused)"),
        ("unix:///nowhere/s?db=0", "/nowhere/s does not answer (No such file or directory)"),
    ],
)
async def test_a_redis_that_is_away_is_named_with_reason_and_remedy_but_no_password(url, fault):
    assert await redis_fault(url) == (
        f"Redis at {fault}; check COURSEWIRE_REDIS_URL, or unset it for the embedded Valkey"
    )


async def test_a_redis_that_answers_has_no_fault_and_one_that_refuses_says_why(
    valkey_url, valkey_admin_url
):
    assert await redis_fault(valkey_url) is None
    refused = await redis_fault(valkey_admin_url.replace("://", "://:hush@"))
    assert refused is not None
    assert "refuses us (" in refused
    assert "hush" not in refused


async def test_a_redis_that_is_away_is_said_at_the_start_and_now_and_then(
    tmp_path, lines, monkeypatch
):
    monkeypatch.setattr("service.local.supervisor.supervisor.REPORT_EVERY_SECONDS", 0.1)
    with capture_logs() as logs:
        async with supervisor(tmp_path, lines) as running:
            waiting = asyncio.create_task(running.ready())
            await until(lambda: sum(log["event"] == "not ready yet" for log in logs) >= 2)
            waiting.cancel()
    first, second, *_ = [log for log in logs if log["log_level"] == "warning"]
    assert first["event"].startswith("Redis at 127.0.0.1:1 does not answer (Connection refused)")
    assert second["event"] == "not ready yet"
    assert second["reason"] == first["event"]


async def test_an_api_that_is_not_ready_is_asked_less_and_less_often(tmp_path, lines):
    source = API.replace("200 OK", "503 No").replace(
        "await reader.readline()", "await reader.readline(); print('asked', flush=True)"
    )
    async with supervisor(tmp_path, lines, program("api", source)) as running:
        with pytest.raises(StartError):
            await running.ready(3)
    assert 1 <= len(lines.of("api")[1:]) <= 9


async def test_an_address_of_another_machine_is_refused_in_one_line(tmp_path, lines):
    with pytest.raises(StartError, match=r"nothing can listen on 192\.0\.2\.1 port"):
        await supervisor(tmp_path, lines, host="192.0.2.1", port=free_port("127.0.0.1")).start()


async def test_the_line_to_paste_reads_the_token_file(tmp_path, lines):
    async with supervisor(tmp_path, lines, data_dir=tmp_path / "it's here") as running:
        line = curl_line(running).replace("curl ", "printf '%s\\n' ", 1)
        settings = running.settings
    shell = await asyncio.create_subprocess_exec("sh", "-c", line, stdout=asyncio.subprocess.PIPE)
    shown, _ = await shell.communicate()
    assert shown.decode().splitlines() == [
        "-H",
        f"Authorization: Bearer {settings.admin_token}",
        f"http://127.0.0.1:{settings.port}/v1/integrations",
    ]


# --- the log ------------------------------------------------------------------------------------


async def test_output_comes_line_by_line_with_its_program_and_long_lines_in_parts(tmp_path, lines):
    source = "import sys; print('one\\ntwo'); print('x' * 200_000); sys.stderr.write('end')"
    async with supervisor(tmp_path, lines, program("x", source)):
        await until(lambda: "end" in lines.of("x"))
    shown = lines.of("x")
    assert shown[:2] == ["one", "two"]
    assert "".join(shown[2:-1]) == "x" * 200_000
    assert all(len(line) <= 2 * 65_536 for line in shown)


def test_the_console_shows_each_name_in_front_of_its_lines():
    plain, coloured = io.StringIO(), io.StringIO()
    for out, colour in ((plain, False), (coloured, True)):
        sink = console_sink(out, colour=colour)
        sink("api", "one")
        sink("worker", "two")
    assert plain.getvalue() == "api       | one\nworker    | two\n"
    first, second = coloured.getvalue().splitlines()
    assert first != "api       | one"
    assert first.split("api")[0] != second.split("worker")[0]


def test_the_json_log_is_json_whatever_the_programs_write():
    out = io.StringIO()
    sink = json_sink(out)
    sink("api", '{"event": "request"}')
    sink("api", "Traceback (most recent call last):")
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"event": "request"},
        {"event": "Traceback (most recent call last):", "component": "api"},
    ]


def test_a_log_that_nobody_reads_any_more_stops_nothing():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    console_sink(Gone(), colour=False)("api", "one")


# --- the whole, as a process of its own -----------------------------------------------------------


def up(
    tmp_path: Path, programs: str, *, through: str = "", patches: str = "", **environment: str
) -> subprocess.Popen[str]:
    # Ctrl-C is heard unless it is ignored, as in a background job of a shell, which this may be.
    source = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from service import stop_signals
from service.local.supervisor import child
from service.local.supervisor.programs import Program
from service.local.supervisor.up import up
from service.settings import Settings
child.ORPHAN_SECONDS = 1
{patches}
python = lambda name, source, **f: Program(
    name=name, argv=(sys.executable, "-c", source), **{{"stop_order": 1, **f}})
API, DEAF = {API!r}, {DEAF!r}
up(Settings.from_env(os.environ), [{programs}])
"""
    (tmp_path / "up.py").write_text(source)
    command = [sys.executable, str(tmp_path / "up.py")]
    if through == "make":
        (tmp_path / "Makefile").write_text(f"up:\n\t@{shlex.join(command)}\n")
        command = ["make", "-f", str(tmp_path / "Makefile")]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "COURSEWIRE_DATA_DIR": str(tmp_path / "data"),
            "COURSEWIRE_PORT": "0",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    raise AssertionError(f"{text!r} never came: {lines}")


def test_up_ends_its_start_with_a_line_to_paste_and_stops_cleanly_on_ctrl_c(tmp_path):
    with up(tmp_path, "python('api', API)", COURSEWIRE_LOG_FORMAT="console") as process:
        try:
            shown = read_until(process, "curl ")
            token_file = tmp_path / "data" / "admin-token"
            assert f'"Authorization: Bearer $(cat {shlex.quote(str(token_file))})"' in shown[-1]
            process.send_signal(signal.SIGINT)
            rest = process.stdout.read().splitlines()
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert all("|" in line for line in shown + rest)
    assert "stopped" in rest[-1]
    assert not any("Traceback" in line for line in rest)


def test_up_logs_json_where_nobody_looks_at_a_terminal(tmp_path):
    with up(tmp_path, "python('api', API)") as process:
        try:
            shown = [json.loads(line) for line in read_until(process, '"event": "ready"')]
            process.send_signal(signal.SIGTERM)
            shown += [json.loads(line) for line in process.stdout]
            assert process.wait(30) == 0
        finally:
            process.kill()
    ready = next(line for line in shown if line["event"] == "ready")
    assert ready["component"] == "up"
    assert ready["try"].startswith("curl ")
    assert ready["docs"].endswith("/schema")


@pytest.mark.parametrize(
    ("through", "status"),
    [("", 0), pytest.param("make", -signal.SIGTERM, id="make, which passes it on")],
)
def test_a_signal_to_the_whole_group_again_and_again_within_a_second_stops_gracefully(
    tmp_path, through, status
):
    log = tmp_path / "log"
    polite = f"""Program(name="polite", argv=(sys.executable, "-c", {POLITE!r}, {str(log)!r},
        "drained", "1.5"), stop_order=1)"""
    with up(tmp_path, f"python('api', API), {polite}", through=through) as process:
        try:
            shown = read_until(process, '"event": "ready"')
            if not any('"component": "polite"' in line for line in shown):
                read_until(process, '"component": "polite"')
            for _ in range(20):
                os.killpg(process.pid, signal.SIGTERM)
            rest = process.stdout.read()
            assert process.wait(30) == status
        finally:
            process.kill()
    assert log.read_text().split() == ["drained"]
    assert "process killed" not in rest
    assert '"event": "stopped"' in rest


def test_a_second_signal_ends_all_at_once(tmp_path):
    programs = "python('api', API), python('deaf', DEAF, drain_seconds=1000)"
    at_once = "stop_signals.SAME_REQUEST_SECONDS = 0.0"
    with up(tmp_path, programs, patches=at_once) as process:
        try:
            read_until(process, '"event": "ready"')
            process.send_signal(signal.SIGTERM)
            read_until(process, "a second signal stops at once")
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read()
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert "process killed" in rest


async def test_killing_the_supervisor_leaves_no_process_and_frees_the_directory(tmp_path):
    """One that ignores SIGTERM is among them; the next start on the directory goes on."""
    programs = "python('api', API), python('deaf', DEAF, drain_seconds=1000)"
    with up(tmp_path, programs) as process:
        try:
            shown = read_until(process, '"event": "ready"')
            while sum('"event": "pid ' in line for line in shown) < 2:  # one may start late
                shown += read_until(process, '"event": "pid ')
            pids = [
                int(line["event"].split()[1])
                for line in map(json.loads, shown)
                if line["event"].startswith("pid ")
            ]
            valkey = int((tmp_path / "data/valkey/valkey.log").read_text().split(":")[0])
        finally:
            process.kill()
    groups = {*pids, valkey}
    assert len(groups) == 3
    DataDirectory(tmp_path / "data").release()  # waits for Valkey to have ended
    await until(lambda: not any(map(alive_in_group, groups)), every=0.1)


# --- the command --------------------------------------------------------------------------------


def coursewire(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.cli", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_reports_a_start_that_fails_in_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = coursewire("up", COURSEWIRE_PORT=port, COURSEWIRE_DATA_DIR=str(tmp_path / "data"))
    assert ended.returncode == 1
    assert ended.stderr == (
        f"coursewire: port {port} on 127.0.0.1 is in use; set COURSEWIRE_PORT to another, "
        "or to 0 for any free one\n"
    )


def test_the_command_reports_unusable_settings_without_a_traceback():
    ended = coursewire("up", COURSEWIRE_PORT="http")
    assert ended.returncode == 2
    assert ended.stderr.startswith("coursewire: COURSEWIRE_PORT 'http' is not a whole number")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["worker", "scheduler"])
def test_the_workers_commands_report_missing_settings_without_a_traceback(name):
    ended = coursewire(name, COURSEWIRE_REDIS_URL=REDIS_URL)
    assert ended.returncode == 2
    assert ended.stderr.startswith(
        "coursewire: COURSEWIRE_ENCRYPTION_KEYS is not set; give the keys"
    )
    assert len(ended.stderr.splitlines()) == 1
    ended = coursewire(name)
    assert ended.returncode == 2
    assert ended.stderr.startswith("coursewire: 2 settings cannot be used:")


@pytest.mark.parametrize("name", ["worker", "scheduler"])
def test_the_workers_commands_take_their_arguments_before_any_settings(name):
    shown = coursewire(name, "--help")
    assert shown.returncode == 0
    assert shown.stdout.startswith(f"Usage: coursewire {name} ")
    refused = coursewire(name, "--bogus")
    assert refused.returncode == 2
    assert "--bogus" in refused.stderr


def test_ctrl_c_before_a_part_handles_it_ends_the_command_quietly(monkeypatch, capsys):
    from service import cli
    from service.commands.demo import run as demo

    def interrupted(**_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "demo", interrupted)
    monkeypatch.setattr(sys, "argv", ["coursewire", "demo"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip() == ""


def test_help_loads_none_of_the_parts():
    source = "import sys, service.cli; print(sorted(sys.modules))"
    loaded = eval(
        subprocess.run(
            [sys.executable, "-c", source], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout
    )
    assert not {"litestar", "structlog", "redis", "rq", "uvicorn", "asyncio"} & set(loaded)
    shown = coursewire("--help").stdout
    for command in ("up", "api", "worker", "scheduler", "sandbox"):
        assert f"\n  {command} " in shown


def test_the_sandbox_command_serves_until_it_is_told_to_stop():
    with subprocess.Popen(
        [sys.executable, "-m", "service.cli", "sandbox", "--port", "0", "--courses", "3"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            shown = read_until(process, "sandbox listening on http://127.0.0.1:")
            url = shown[0].split()[-1]
            directions = "\n".join(
                read_until(process, "Add 127.0.0.1 to COURSEWIRE_ALLOWED_TARGETS")
            )
            for text in (url, "sandbox-key", "sandbox:demo"):
                assert text in directions
            curl = shlex.split(directions[directions.index("curl") :].splitlines()[0])
            request = urllib.request.Request(curl[-1], data=curl[2].encode())
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert json.loads(answer.read())[0]["op"] == "edit"
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()


def test_the_sandbox_command_reports_a_taken_port_in_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ended = coursewire("sandbox", "--port", str(taken.getsockname()[1]))
    assert ended.returncode == 1
    assert "the sandbox cannot listen on 127.0.0.1 port" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("name", "module"), [("worker", "workers.worker"), ("scheduler", "workers.scheduler")]
)
def test_the_workers_commands_become_the_module_with_every_flag(name, module, monkeypatch):
    from service.cli import coursewire as command

    became = []
    monkeypatch.setattr(os, "execv", lambda *arguments: became.append(arguments))
    command([name, "--help", "--slots", "2"], standalone_mode=False)
    assert became == [(sys.executable, [sys.executable, "-m", module, "--help", "--slots", "2"])]
