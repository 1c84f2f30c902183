"""The live API against requests that Schemathesis makes of its schema, right and wrong ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.conftest import TOKEN, Api

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("schemathesis.toml")


def fuzz(api: Api, *options: str, token: str | None = TOKEN) -> int:
    """How many requests were made, without one that was answered otherwise than documented."""
    headers = [] if token is None else ["--header", f"Authorization: Bearer {token}"]
    ran = subprocess.run(
        [
            *(Path(sys.executable).with_name("st"), "--config-file", CONFIG, "--no-color"),
            *("run", f"{api.url}/schema/openapi.json", *headers, *options),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-5_000:]
    assert api.process.poll() is None, api.log()
    assert "Traceback" not in api.log()
    generated = re.search(r"(\d+) generated", ran.stdout)
    assert generated, ran.stdout
    return int(generated[1])


@pytest.mark.timeout(300)
def test_the_api_answers_as_documented(api: Api) -> None:
    assert fuzz(api, "--phases", "examples,coverage,stateful", "--max-examples", "2") > 2_000


@pytest.mark.timeout(300)
def test_nothing_is_answered_without_a_token(api: Api) -> None:
    options = ("--phases", "fuzzing", "--max-examples", "3", "--mode", "positive")
    assert fuzz(api, *options, token=None) > 50


@pytest.mark.nightly
@pytest.mark.timeout(3_600)
def test_ten_thousand_requests_find_nothing(api: Api) -> None:
    made = fuzz(api, "--max-examples", "200")
    made += fuzz(api, "--max-examples", "40", token=None)
    sys.stdout.write(f"{made} requests\n")
    assert made >= 10_000
