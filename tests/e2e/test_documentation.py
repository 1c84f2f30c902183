"""The blocks of shell in README.md and docs/, run as they are written against a live service.

CONTRIBUTING.md explains how a page marks a block that is not run, or that keeps running.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.site import ROOT, pages
from tests.e2e.reader import COMMENT, Reader, blocks, starts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]  # real processes

RUN = [page for page in pages() if any(block.runs for block in blocks(page))]
# What the reader of a page that does not start the service has defined, registered and received.
PREPARED = (
    "export COURSEWIRE=$(cat .coursewire/api-url) TOKEN=$(cat .coursewire/admin-token)",
    """
coursewire subscriptions create --url http://127.0.0.1:9000/ --secret whsec_...
export ID=$(coursewire integrations create --name Sandbox --base-url http://127.0.0.1:8990/v1 \\
    --api-key sandbox-key --upstream-id sandbox:demo --delta-interval-seconds 5 --get id)
""",
    r"""
until coursewire deliveries list --state delivered | grep -q evt_; do sleep 0.2; done
export CURSOR=$(curl -sS -H "Authorization: Bearer $TOKEN" "$COURSEWIRE/v1/events?limit=1" |
    sed 's/.*"cursor":"\([^"]*\).*/\1/')
coursewire api-key create --name reader --scope read
""",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    reader = Reader(tmp_path_factory.mktemp("prepared"))
    try:
        reader.start("COURSEWIRE_ALLOWED_TARGETS=127.0.0.1 coursewire up")
        reader.start("coursewire sandbox --churn 2")
        reader.start("coursewire listen")
        for commands in PREPARED:
            reader.run(commands)
        yield reader
    finally:
        reader.close()


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if not starts(page, "up"):
        request.getfixturevalue("prepared").read(page)
        return
    reader = Reader(tmp_path)
    try:
        if not starts(page, "sandbox"):
            reader.start("coursewire sandbox")
        reader.read(page)
    finally:
        reader.close()


def test_every_comment_above_a_block_is_understood() -> None:
    for page in pages():
        for block in blocks(page):
            assert COMMENT.fullmatch(block.comment), f"{page.name}: {block.comment}"
