"""Carries out the Dockerfile's steps in a clean directory, where no container engine is at hand.

    make image

Each instruction is read from the Dockerfile itself; one that is not understood ends the run. What a
step names by an absolute path of the image is under the directory instead. At the end the entry
point is started as the image would, as its user where the caller may become that, without write
access to anything but the volume, until the health check passes, and is stopped.

It is no isolation: the machine's own files are there to be found, and its Python stands for the
base image's. Whether an engine builds the image the same way it cannot tell.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]


def say(text: str) -> None:
    """A line for whoever watches."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


IGNORED = shutil.ignore_patterns("__pycache__")
HEALTHY_SECONDS = 60.0
STOPPED_SECONDS = 30.0


class Stage:
    """One stage of the image: where its files are, and what its instructions have set."""

    def __init__(self, root: Path, base_path: str) -> None:
        self.root = root
        self.workdir = "/"
        self.env = {"PATH": base_path}
        self.user: tuple[int, int] | None = None
        self.volumes: list[str] = []
        self.healthcheck: list[str] = []
        self.entrypoint: list[str] = []
        self.command: list[str] = []
        self._mapped: set[str] = set()

    def path(self, name: str) -> Path:
        """Where an absolute path of the image, or one from the working directory, is."""
        return self.root / str(PurePosixPath(self.workdir) / name).lstrip("/")

    def owns(self, name: str) -> None:
        """Notes that a path is the image's own: it is under the directory wherever it is named."""
        self._mapped.add(name.rstrip("/"))

    def here(self, text: str) -> str:
        """A command or value with the image's own paths where they are."""
        for name in sorted(self._mapped, key=len, reverse=True):
            text = re.sub(rf"(?<![\w./-]){re.escape(name)}(?![\w-])", str(self.root) + name, text)
        return text

    def environment(self) -> dict[str, str]:
        """The variables of a process in this stage."""
        found = {"HOME": str(self.root), "LANG": "C.UTF-8"}
        for name, value in self.env.items():
            found[name] = self.here(value)
        return found


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """The instructions of a Dockerfile with their arguments, each on one line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    for line in filter(None, map(str.strip, joined.splitlines())):
        name, _, arguments = line.partition(" ")
        yield name.upper(), arguments.strip()


class Build:
    """Stages as they are made, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stages: dict[str, Stage] = {}
        self.stage: Stage | None = None
        base = directory / "base"
        venv.create(base, with_pip=True)  # the base image's Python and pip
        self._path = f"{base / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

    def carry_out(self, name: str, arguments: str) -> None:
        """One instruction. Raises SystemExit if it fails, or is not understood."""
        say(f"{name} {arguments}")
        step = getattr(self, f"_{name.lower()}", None)
        if step is None:
            raise SystemExit(f"deploy/image.py does not know {name}")
        step(arguments)

    @property
    def current(self) -> Stage:
        """The stage that is being made."""
        if self.stage is None:
            raise SystemExit("an instruction before the first FROM")
        return self.stage

    def _from(self, arguments: str) -> None:
        image, _, name = arguments.partition(" AS ")
        if not re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", image):
            raise SystemExit(f"deploy/image.py stands for a pinned python:...-slim, not {image}")
        name = name or f"stage-{len(self.stages)}"
        root = self.directory / name
        (root / "etc").mkdir(parents=True)
        (root / "tmp").mkdir()
        self.stage = self.stages[name] = Stage(root, self._path)

    def _workdir(self, arguments: str) -> None:
        stage = self.current
        stage.workdir = str(PurePosixPath(stage.workdir) / arguments)
        stage.owns(stage.workdir)
        stage.path("").mkdir(parents=True, exist_ok=True)

    def _env(self, arguments: str) -> None:
        stage = self.current
        for assignment in shlex.split(arguments):
            name, _, value = assignment.partition("=")
            stage.env[name] = value.replace("$PATH", stage.env["PATH"])

    def _copy(self, arguments: str) -> None:
        stage = self.current
        *sources, target = arguments.split()
        origin = ROOT
        if sources[0].startswith("--from="):
            origin = self.stages[sources.pop(0).removeprefix("--from=")].root
        if target.startswith("/"):
            stage.owns(target)
        for source in sources:
            found = origin / source.lstrip("/")
            into = stage.path(target)
            if found.is_dir():
                shutil.copytree(found, into, ignore=IGNORED, symlinks=True, dirs_exist_ok=True)
                if origin != ROOT:
                    _moved(into, f"{origin}{source}", f"{stage.root}{target}")
            else:
                into = into / found.name if target.endswith("/") else into
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, into)

    def _run(self, arguments: str) -> None:
        stage = self.current
        for name in re.findall(r"(?<![\w.:/-])(/[\w./-]+)", arguments):
            top = "/".join(name.split("/")[: 3 if name.startswith(("/opt/", "/var/")) else 2])
            if not Path(top).exists() or top.startswith("/opt/"):
                stage.owns(top)
        command = stage.here(arguments)
        command = re.sub(r"\buseradd\b", f"useradd --prefix {stage.root}", command)
        for name in ("passwd", "group", "shadow"):
            (stage.root / "etc" / name).touch()
        done = subprocess.run(  # noqa: S603 - what the Dockerfile says
            ["/bin/sh", "-ec", command],
            check=False,
            cwd=stage.path(""),
            env=stage.environment(),
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise SystemExit(f"this step failed with {done.returncode}: {arguments}")

    def _user(self, arguments: str) -> None:
        user, _, group = arguments.partition(":")
        known = (self.current.root / "etc/passwd").read_text()
        if f":{user}:" not in known:
            raise SystemExit(f"USER {user} is not made by a step before")
        self.current.user = int(user), int(group)

    def _volume(self, arguments: str) -> None:
        self.current.volumes += json.loads(arguments)

    def _expose(self, arguments: str) -> None:
        int(arguments)

    def _healthcheck(self, arguments: str) -> None:
        self.current.healthcheck = json.loads(arguments[arguments.index("CMD ") + 4 :])

    def _entrypoint(self, arguments: str) -> None:
        self.current.entrypoint = json.loads(arguments)

    def _cmd(self, arguments: str) -> None:
        self.current.command = json.loads(arguments)


def _moved(directory: Path, old: str, new: str) -> None:
    """Scripts name their interpreter by its place, which is the same in the image, but not here."""
    for path in (directory / "bin").glob("*"):
        if path.is_file() and not path.is_symlink() and old.encode() in path.read_bytes()[:512]:
            path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))


def _reachable(become: list[str]) -> bool:
    """Whether another user may run the Python that everything was made with."""
    asked = [*become, os.path.realpath(sys.executable), "-c", "import sys; print(sys.version)"]
    try:
        found = subprocess.run(asked, check=False, capture_output=True, text=True)  # noqa: S603
    except OSError:
        return False
    return found.stdout.strip() == sys.version


def try_out(stage: Stage) -> None:
    """Starts the image's entry point and asks its health check. Raises SystemExit if it fails."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = stage.environment() | {
        "COURSEWIRE_HOST": "127.0.0.1",
        "COURSEWIRE_PORT": str(port),
        "TMPDIR": str(stage.root / "tmp"),
    }
    become = []
    if os.geteuid() == 0 and stage.user is not None:
        uid, gid = stage.user
        become = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--"]
        if not _reachable(become):
            say(f"user {uid} cannot read this Python: the image's user is not tried")
            become = []
        for name in [*stage.volumes, "/tmp"]:  # noqa: S108 - the image's
            for path in [stage.path(name), *stage.path(name).rglob("*")]:
                os.chown(path, uid, gid)

    def run(*command: str) -> subprocess.CompletedProcess[bytes]:
        found = shutil.which(command[0], path=environment["PATH"]) or command[0]
        return subprocess.run(  # noqa: S603 - the same
            [*become, found, *command[1:]],
            check=False,
            env=environment,
            cwd=stage.path(""),
            capture_output=True,
        )

    version = run(*stage.entrypoint, "--version")
    if version.returncode:
        raise SystemExit(f"{stage.entrypoint} --version: {version.stderr.decode()}")
    say(version.stdout.decode().strip())
    log = stage.root / "tmp/log"
    entry = shutil.which(stage.entrypoint[0], path=environment["PATH"])
    with log.open("wb") as output:
        service = subprocess.Popen(  # noqa: S603 - the same
            [*become, str(entry), *stage.entrypoint[1:], *stage.command],
            env=environment,
            cwd=stage.path(""),
            stdout=output,
            stderr=output,
        )
    try:
        begun = time.monotonic()
        while run(*stage.healthcheck).returncode:
            if service.poll() is not None or time.monotonic() - begun > HEALTHY_SECONDS:
                raise SystemExit(f"never healthy:\n{log.read_text()}")
            time.sleep(0.2)
        say(f"healthy after {time.monotonic() - begun:.1f} s")
        service.send_signal(signal.SIGTERM)
        code = service.wait(STOPPED_SECONDS)
    finally:
        service.kill()
        service.wait()
    if code:
        raise SystemExit(f"SIGTERM ended it with {code}:\n{log.read_text()}")


def size(directory: Path) -> int:
    """Bytes of all files in it."""
    return sum(path.lstat().st_size for path in directory.rglob("*") if not path.is_dir())


def main() -> None:
    """Carries out all steps and tries the outcome."""
    argparse.ArgumentParser(
        prog="make image", description=(__doc__ or "").partition("\n")[0]
    ).parse_args()
    with tempfile.TemporaryDirectory(prefix="coursewire-image-") as name:
        directory = Path(name).resolve()
        directory.chmod(0o755)  # so that the image's user finds its way
        build = Build(directory)
        for step in instructions((ROOT / "Dockerfile").read_text()):
            build.carry_out(*step)
        stage = build.current
        for path in stage.root.rglob("*"):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222)  # a read-only root file system
        for volume in [*stage.volumes, "/tmp"]:  # noqa: S108 - the image's
            stage.path(volume).chmod(0o755)
        try_out(stage)
        say(f"{size(stage.root) / 1e6:.0f} MB beside the base image")


if __name__ == "__main__":
    main()
