"""A reader of the documentation: runs a page's blocks of shell as they are written, one after the
other, and puts in what a person would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import httpx

from deploy.site import ROOT
from tests.conftest import free_port

BLOCK = re.compile(
    r"(?:^ *<!-- ([^\n]*?) -->\n\n?)?^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE
)
NONE_IS_RUN = re.compile(r"^<!-- no block is run: .{5,} -->$", re.MULTILINE)
COMMENT = re.compile(r"(?:(not run): .{5,}|(keeps running)|(file): \S+)?")
READY = re.compile(r"listening on |/v1/integrations|^event: ", re.MULTILINE)
PLACEHOLDER = re.compile(r"\b(sub|int|evt|key|rpl|whsec)_\.\.\.|\b26vafv\w+")
LISTS = {"sub": "subscriptions", "int": "integrations", "key": "api-keys"}
SECONDS = 60


class Block(NamedTuple):
    """A block of a page, and the comment directly above it."""

    comment: str
    language: str
    text: str

    @property
    def runs(self) -> bool:
        return self.language == "sh" and not self.comment.startswith("not run")

    @property
    def keeps_running(self) -> bool:
        return self.runs and self.comment == "keeps running"


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, none if the page gives a reason why none is run."""
    text = page.read_text()
    found = [] if NONE_IS_RUN.search(text) else BLOCK.findall(text)
    return [Block(comment, language, dedent(code)) for comment, language, code in found]


def starts(page: Path, command: str) -> bool:
    """Whether a block of the page starts a command that keeps running."""
    return any(
        re.search(rf"\b{command}\b", block.text) for block in blocks(page) if block.keeps_running
    )


class Reader:
    """A directory, a shell whose functions and variables last, and what runs beside it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._data = directory / ".coursewire"
        self._printed = ""
        self._ports = {usual: str(free_port()) for usual in ("8000", "8990", "9000")}
        self._beside: list[tuple[subprocess.Popen[bytes], Path]] = []
        self._state = directory / "state.sh"
        self._state.touch()
        self._shell = f"set -aeuo pipefail\n. {self._state}"
        (directory / ".venv").symlink_to(sys.prefix)
        (directory / "kombo-key.txt").write_text("sandbox-key")
        environ = {name: v for name, v in os.environ.items() if not name.startswith("COURSEWIRE")}
        self._environ = environ | {
            "PATH": f"{Path(sys.executable).parent}:{environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "VENV": sys.prefix,
            "COURSEWIRE_DATA_DIR": str(self._data),
            "COURSEWIRE_PORT": self._ports["8000"],
        }

    def read(self, page: Path) -> None:
        """Does what the blocks of a page ask for."""
        for block in blocks(page):
            if block.keeps_running:
                self.start(block.text)
            elif block.runs:
                self.run(block.text)

    def run(self, text: str) -> None:
        """Runs commands once no integration has a first poll to complete."""
        self._wait(self._no_baseline, "the baseline is not complete")
        script = self._filled_in(text)
        save = f"{{ declare -f; export -p; }} >{self._state}"
        done = subprocess.run(
            ["bash", "-c", f"{self._shell}\n{script}\n{save}"],
            cwd=self._directory,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        self._printed += done.stdout
        failed = done.returncode or "urn:coursewire:problem" in done.stdout
        assert not failed, f"{script}\nended with {done.returncode}\n{done.stdout[-3000:]}"

    def start(self, text: str) -> None:
        """Starts commands of which the last ends by a signal, and waits until it is ready."""
        log = self._directory / f"beside-{len(self._beside)}.log"
        script = self._filled_in(text)
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"{self._shell}\n{script}"],
                cwd=self._directory,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._beside.append((process, log))
        self._wait(lambda: READY.search(log.read_text()), f"not ready: {script}")
        self._printed += log.read_text()

    def close(self) -> None:
        """Ends what runs beside, the newest first."""
        for process, _ in reversed(self._beside):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(SECONDS)

    def _api(self, path: str) -> list[dict[str, Any]]:
        """A list of the service, empty where none runs."""
        if not (self._data / "api-url").exists():
            return []
        answer = httpx.get(
            (self._data / "api-url").read_text().strip() + path,
            headers={"authorization": f"Bearer {(self._data / 'admin-token').read_text().strip()}"},
            timeout=SECONDS,
        )
        items: list[dict[str, Any]] = answer.raise_for_status().json()["items"]
        return items

    def _no_baseline(self) -> bool:
        return all(one["state"] != "baseline" for one in self._api("/v1/integrations"))

    def _wait(self, condition: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not condition():
            ended = [log for process, log in self._beside if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                logs = ended or [log for _, log in self._beside]
                raise AssertionError("\n".join([what, *(log.read_text()[-4000:] for log in logs)]))
            time.sleep(0.05)

    def _filled_in(self, text: str) -> str:
        """The block with what a person would put in, on ports that are free."""
        text = re.sub(r"\bmake (?=[a-z])", f"make -s -C {ROOT} ", text)
        text = re.sub(r"\bcoursewire listen\b", "coursewire listen --port 9000", text)
        sandbox = "coursewire sandbox --port 8990 --integration sandbox:demo"
        text = re.sub(
            r"\bcoursewire sandbox\b",
            f"{sandbox} --integration workday:YOUR_INTEGRATION_ID",
            text,
        )
        text = text.replace("https://api.kombo.dev", "http://127.0.0.1:8990")
        text = text.replace("YOUR_KOMBO_KEY", "sandbox-key")
        for usual, port in self._ports.items():
            text = re.sub(rf"\b{usual}\b", port, text)
        return PLACEHOLDER.sub(self._seen, text)

    def _seen(self, placeholder: re.Match[str]) -> str:
        """What was printed last of that kind, or the newest that there is."""
        kind = placeholder[1]
        if printed := re.findall(rf"\b{kind}_[A-Za-z0-9+/=_-]{{10,}}", self._printed):
            return str(printed[-1])
        if kind in LISTS:
            return str(self._api(f"/v1/{LISTS[kind]}")[0]["id"])
        event = self._api("/v1/events?order=desc&type=course.updated")[0]["data"]
        return str(event["event_id" if kind else "course_id"])
