"""Keeps the lock files in step with pyproject.toml.

`locks.py check` needs neither the network nor an installed package; `locks.py compile` runs uv.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEV_LOCK = "requirements-dev.lock"
BENCH_LOCK = "requirements-bench.lock"
JAVASCRIPT_LOCK = "tests/javascript/package-lock.json"

# The additional requirements of hatchling for an editable installation.
EDITABLE_BUILD = ["editables>=0.5"]

INPUTS_LINE = re.compile(r"^# inputs: sha256:([0-9a-f]{64})$", re.MULTILINE)
PINNED_LINE = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)
RESOLVED = re.compile(r'"resolved": .*')
ADDRESS = re.compile(r"^.*(?:://|--(?:extra-)?index-url|--find-links).*$", re.MULTILINE)


def inputs() -> Mapping[str, list[str]]:
    """Each lock file with the requirements it pins, the one that the others follow first."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime: list[str] = pyproject["project"]["dependencies"]
    build: list[str] = pyproject["build-system"]["requires"] + EDITABLE_BUILD
    dev: list[str] = pyproject["dependency-groups"]["dev"]
    return {
        DEV_LOCK: runtime + build + dev,
        "requirements.lock": runtime,
        "requirements-build.lock": build,
        BENCH_LOCK: runtime + build + dev + pyproject["dependency-groups"]["bench"],
    }


def digest(requirements: list[str]) -> str:
    """Changes with the requirements, not with their order."""
    return hashlib.sha256("\n".join(sorted(requirements)).encode()).hexdigest()


def faults() -> list[str]:
    """Every way in which a lock file is not what `make lock` would have written."""
    found: list[str] = []
    covering: set[tuple[str, str]] | None = None
    for name, requirements in inputs().items():
        path = ROOT / name
        if not path.is_file():
            found.append(f"{name} is missing")
            continue
        text = path.read_text()
        recorded = INPUTS_LINE.search(text)
        if recorded is None or recorded[1] != digest(requirements):
            found.append(f"{name} was compiled from other requirements than pyproject.toml has now")
        found.extend(f"{name} names an address: {line[0]}" for line in ADDRESS.finditer(text))
        pins = set(PINNED_LINE.findall(text))
        covering = pins if covering is None else covering
        # The benchmarks need more than the rest; what they share with it is the same.
        known = {package for package, _ in covering} if name == BENCH_LOCK else None
        found.extend(
            f"{name} pins {package} {version}, unlike {DEV_LOCK}"
            for package, version in sorted(pins - covering)
            if known is None or package in known
        )
    text = (ROOT / JAVASCRIPT_LOCK).read_text()
    found.extend(f"{JAVASCRIPT_LOCK} names an address: {one}" for one in RESOLVED.findall(text))
    return found


def compile_locks(options: list[str]) -> None:
    """Rewrites all lock files with uv, keeping the pinned versions unless `options` upgrade them.

    `options` go to uv for the first lock; the others follow its versions.
    """
    uv = os.environ.get("UV") or "uv"
    for name, requirements in inputs().items():
        extra = options if name == DEV_LOCK else ["--constraint", DEV_LOCK, "--upgrade"]
        command = [
            *[uv, "pip", "compile", "-", "--output-file", name, "--quiet"],
            *["--universal", "--python-version", "3.11", "--generate-hashes"],
            *["--no-annotate", "--no-header", "--no-emit-index-url", "--no-emit-find-links"],
            *extra,
        ]
        try:
            subprocess.run(command, check=True, cwd=ROOT, input="\n".join(requirements), text=True)  # noqa: S603 - the command is built above from constants and the caller's own options
        except FileNotFoundError:
            sys.exit(f"`{uv}` is not installed: see docs.astral.sh/uv, or `pip install uv`")
        except subprocess.CalledProcessError as failed:
            sys.exit(failed.returncode)
        path = ROOT / name
        header = f"# Written by `make lock`.\n# inputs: sha256:{digest(requirements)}\n"
        path.write_text(header + path.read_text())


def main(arguments: list[str]) -> None:
    """Runs the command named first, with the remaining arguments as its options."""
    match arguments:
        case ["check"]:
            if found := faults():
                sys.exit("\n".join([*found, "Run `make lock` and commit what it changes."]))
        case ["compile", *options]:
            compile_locks(options)
        case _:
            sys.exit("usage: locks.py check | compile [uv options]")


if __name__ == "__main__":
    main(sys.argv[1:])
