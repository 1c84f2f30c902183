"""Programs from outside that tests use, as .ci/packages lists them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

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
