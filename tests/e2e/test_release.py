"""What `make dist` builds: the same bytes each time, and all that an installation needs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

# It builds twice, and installs everything anew from the package index.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
LOCKED = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
STEM = f"coursewire-{PROJECT['version']}"
WHEEL = f"{STEM}-py3-none-any.whl"
COPIED = ("service", "workers", "deploy", "docs", "pyproject.toml", "requirements.lock", "Makefile")
COPIED_TOO = ("README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md")


def build(directory: Path, umask: int) -> Path:
    """`make dist` in a copy of the project."""
    directory.mkdir()
    for name in (*COPIED, *COPIED_TOO):
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, directory / name, ignore=ignored)
        else:
            shutil.copyfile(ROOT / name, directory / name)
    done = subprocess.run(
        # Without `dev`, which would install this copy in place of the project.
        ["make", "--old-file=dev", "dist", f"VENV={sys.prefix}"],
        cwd=directory,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1800000000"},
        umask=umask,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "dist"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("release")
    return build(directory / "one", 0o022), build(directory / "another", 0o077)


def digests(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir()
    }


def test_two_builds_are_the_same(built):
    one, another = map(digests, built)
    assert set(one) == {WHEEL, f"{STEM}.tar.gz", f"{STEM}.cdx.json"}
    assert one == another


def test_the_source_archive_holds_what_a_build_needs_and_no_rubbish(built):
    with tarfile.open(built[0] / f"{STEM}.tar.gz") as archive:
        names = {Path(name).relative_to(STEM).as_posix() for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "service/cli.py"} <= names
    assert {name.split("/")[0] for name in names} - {*COPIED, *COPIED_TOO} <= {
        "PKG-INFO",
        ".gitignore",
    }


def test_the_bill_of_materials_names_every_locked_package(built):
    document = json.loads((built[0] / f"{STEM}.cdx.json").read_text())
    assert document["bomFormat"] == "CycloneDX"
    assert document["metadata"]["component"]["version"] == PROJECT["version"]
    named = {f"{one['name']}=={one['version']}" for one in document["components"]}
    assert named == set(re.findall(r"^[\w.-]+==[\w.]+", LOCKED, re.MULTILINE))


def test_the_wheel_alone_is_all_that_an_installation_needs(built, tmp_path):
    constraints = tmp_path / "constraints"
    constraints.write_text("\n".join(re.findall(r"^[\w.-]+==[\w.]+", LOCKED, re.MULTILINE)))
    clean = {name: text for name, text in os.environ.items() if "PYTHON" not in name}
    clean["PATH"] = f"{tmp_path}/env/bin:{clean['PATH']}"

    def run(*command: str) -> str:
        done = subprocess.run(
            command, cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", "env")
    run(
        "env/bin/pip", "install", "--quiet", "--constraint", str(constraints), str(built[0] / WHEEL)
    )
    assert PROJECT["version"] in run("env/bin/coursewire", "--version")
    assert "service/cli.py" not in run("env/bin/pip", "show", "coursewire")
    shown = run("env/bin/coursewire", "demo", "--events", "5", "--timeout", "120")
    assert "5" in shown
