"""A headless Chromium that knows no host but this machine, driven over its own pipe."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.programs import required_program

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--disable-dev-shm-usage",
    # Another host would be asked at a port on which nobody listens.
    "--host-resolver-rules=MAP * 127.0.0.1:9, EXCLUDE 127.0.0.1",
)


class Tab:
    """One tab: what it shows, and what it asked for and complained of meanwhile."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = os.fdopen(commands, "wb", buffering=0)
        self._answers = os.fdopen(answers, "rb")
        self._number = 0
        self._session: str | None = None
        self._loaded = False
        self.requested: list[str] = []
        self.complaints: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self._call(f"{domain}.enable")

    def open(self, url: str, *, width: int = 1400) -> None:
        """Loads a page. What its scripts make is for `run` to wait for."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=1000,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self._loaded = False
        if "loaderId" in self._call("Page.navigate", url=url):  # else only the fragment changed
            while not self._loaded:
                self._note(self._read())

    def run(self, script: str) -> Any:
        """The value of an asynchronous script, in which `find(selector)` waits for an element."""
        find = (
            "const find = async (selector) => { for (let waits = 0; waits < 1500; waits++) {"
            "  const found = document.querySelector(selector); if (found) return found;"
            "  await new Promise((then) => setTimeout(then, 20)); }"
            "  throw new Error(`there is no ${selector}`); };"
        )
        answer = self._call(
            "Runtime.evaluate",
            expression=f"(async () => {{ {find} {script} }})()",
            awaitPromise=True,
            returnByValue=True,
            userGesture=True,
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def picture(self) -> bytes:
        """What it shows, as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot")["data"])

    def close(self) -> None:
        self._commands.close()
        self._answers.close()

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        self._commands.write(json.dumps(command).encode() + b"\0")
        while (message := self._read()).get("id") != self._number:
            self._note(message)
        assert "error" not in message, message
        result: dict[str, Any] = message["result"]
        return result

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requested.append(parameters["request"]["url"])
            case "Log.entryAdded":
                self.complaints.append(parameters["entry"]["text"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))

    def _read(self) -> dict[str, Any]:
        text = bytearray()
        while (one := self._answers.read(1)) != b"\0":
            assert one, "the browser ended"
            text += one
        message: dict[str, Any] = json.loads(text)
        return message


def _moved(file: int) -> int:
    """The same file under a number that is neither 3 nor 4."""
    moved = fcntl.fcntl(file, fcntl.F_DUPFD, 10)
    os.close(file)
    return moved


@contextmanager
def browser(directory: Path) -> Iterator[Tab]:
    """A tab of a browser of its own."""
    chromium = required_program("chromium")
    from_us, commands = os.pipe()
    answers, to_us = os.pipe()
    from_us, to_us = _moved(from_us), _moved(to_us)
    process = subprocess.Popen(
        [
            # It reads commands from file 3 and answers on file 4.
            *("bash", "-c", f'exec "$0" "$@" 3<&{from_us} 4>&{to_us}', chromium, *FLAGS),
            *(f"--user-data-dir={directory / 'profile'}", "--remote-debugging-pipe"),
        ],
        pass_fds=(from_us, to_us),
        stderr=subprocess.DEVNULL,
    )
    os.close(from_us)
    os.close(to_us)
    try:
        with closing(Tab(commands, answers)) as tab:
            yield tab
    finally:
        process.kill()
        process.wait()
