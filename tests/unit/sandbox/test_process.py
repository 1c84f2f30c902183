"""The sandbox as a process: what it says, how it stops, and connections that break off."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap

import httpx
import pytest

HEADERS = {"authorization": "Bearer sandbox-key", "x-integration-id": "sandbox:demo"}
START = """
    import sys
    from service.sandbox.server import SandboxConfig, run
    run(SandboxConfig(port=0, courses=200, quiet=sys.argv[1] == "quiet"))
    print("returned")
"""


@pytest.fixture
def start():
    processes = []

    def launch(mode):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(START), mode],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        line = process.stdout.readline()
        found = re.fullmatch(r"sandbox listening on (http://127\.0\.0\.1:[1-9]\d*/v1)\n", line)
        assert found, (line, process.poll())
        return process, found[1]

    yield launch
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_the_process_says_where_it_listens_and_returns_when_told_to_stop(start, stop):
    process, url = start("loud")
    answer = httpx.get(f"{url}/lms/courses", headers=HEADERS)
    assert answer.json()["status"] == "success"
    assert len(answer.headers.get_list("date")) == 1
    process.send_signal(stop)
    # Not `communicate`, which loses what came along with the line that was read.
    output, errors = process.stdout.read(), process.stderr.read()
    assert process.wait(timeout=10) == 0, errors
    *directions, served, returned = output.splitlines()
    assert "Add 127.0.0.1 to COURSEWIRE_ALLOWED_TARGETS" in directions[-1]
    assert "GET /v1/lms/courses -> 200" in served
    assert returned == "returned"
    assert errors == ""


def test_a_dropped_connection_breaks_off_in_the_middle_of_the_body(start):
    process, url = start("quiet")
    with httpx.Client() as client:
        control = url.removesuffix("/v1") + "/control/faults"
        client.post(control, json={"kind": "drop", "times": 1, "after": 0.5})
        received = b""
        with client.stream("GET", f"{url}/lms/courses", headers=HEADERS) as answer:
            broken = False
            try:
                for chunk in answer.iter_raw():
                    received += chunk
            except httpx.RemoteProtocolError:
                broken = True
        assert broken
        assert 0 < len(received) < int(answer.headers["content-length"])
        whole = client.get(f"{url}/lms/courses", headers=HEADERS)
        assert whole.content.startswith(received)
    process.terminate()
    output, _ = process.communicate(timeout=10)
    assert output == "returned\n"
