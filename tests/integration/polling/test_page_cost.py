"""What a page costs: the commits, the reads of the catalogue, the digests and the decoded heads."""

from __future__ import annotations

from collections import Counter

import pytest

from service.domain.courses import received
from service.domain.polling import page as pages
from service.domain.review.guards import Guards
from service.storage.polling.catalogue import Commit
from service.storage.redis.scripts import compiled
from tests.integration.conftest import new_integration
from tests.integration.scripted import page, says

COMMIT = compiled(Commit).digest
COURSES = 600  # of the sandbox: three pages


@pytest.fixture
def cost(services, monkeypatch) -> Counter[str]:
    """Counts from here on."""
    counted: Counter[str] = Counter()
    execute = services.redis.execute_command
    digest, decode_head = pages.raw_digest, received.decode_head

    async def execute_counted(*arguments, **options):
        command, name, *_ = arguments
        counted["commits"] += (command, name) == ("EVALSHA", COMMIT)
        counted["reads"] += command == "HMGET" and name.startswith("cw:catalogue:")
        return await execute(*arguments, **options)

    def digest_counted(record):
        counted["digests"] += 1
        return digest(record)

    def decode_counted(record):
        counted["heads"] += 1
        return decode_head(record)

    monkeypatch.setattr(services.redis, "execute_command", execute_counted)
    monkeypatch.setattr(pages, "raw_digest", digest_counted)
    monkeypatch.setattr(received, "raw_digest", digest_counted)
    monkeypatch.setattr(received, "decode_head", decode_counted)
    return counted


async def cost_of_a_full_poll(integration, cost) -> Counter[str]:
    cost.clear()
    poll = await integration.poll("full")
    assert poll.state == "completed"
    return Counter(cost)


async def test_a_change_costs_one_more_commit_and_no_more_reads(register, sandbox, cost):
    integration = await register()
    await integration.poll("full")
    unchanged = await cost_of_a_full_poll(integration, cost)
    course_id = (await sandbox.courses())[0]["id"]
    await sandbox.change({"op": "edit", "course_id": course_id, "path": "revisions.title"})
    changed = await cost_of_a_full_poll(integration, cost)

    assert (await integration.events())[-1].course_id == course_id
    assert (unchanged["digests"], unchanged["heads"], unchanged["reads"]) == (COURSES, 0, 0)
    assert (changed["digests"], changed["heads"], changed["reads"]) == (COURSES, 1, 0)
    # The page with the change is refused, then committed.
    assert changed["commits"] == unchanged["commits"] + 1


async def test_a_page_after_one_that_changed_is_read_at_once(register, sandbox, cost):
    integration = await register(guards=Guards(changed_share=1))
    await integration.poll("full")
    unchanged = await cost_of_a_full_poll(integration, cost)
    await sandbox.change({"op": "edit", "count": COURSES, "path": "revisions.title"})
    changed = await cost_of_a_full_poll(integration, cost)

    assert Counter(one.type for one in await integration.events())["course.updated"] == COURSES
    # Only the first page is refused. Two pages have too many changes for one commit.
    assert changed["commits"] == unchanged["commits"] + 1 + 2
    assert (changed["digests"], changed["heads"], changed["reads"]) == (COURSES, COURSES, 2)
    assert await cost_of_a_full_poll(integration, cost) == unchanged


async def test_each_record_of_a_first_poll_is_digested_and_decoded_once(register, cost):
    integration = await register()
    counted = await cost_of_a_full_poll(integration, cost)
    assert (counted["digests"], counted["heads"]) == (COURSES, COURSES)


def compact(*course_ids: str) -> bytes:
    """A page whose records begin with their ids."""
    return page(course_ids).replace(b'": ', b'":').replace(b', "', b',"')


async def test_an_id_that_is_not_what_it_seems_is_compared_with_its_own_fingerprint(
    context, scripted, cost
):
    integration = await new_integration(context, scripted.base_url)
    scripted.answer = says(200, compact("a", "b"))
    await integration.poll("full")
    scripted.answer = says(200, compact("b", "a").replace(b'"id":"a"', b'"id":"\\u0061"'))
    counted = await cost_of_a_full_poll(integration, cost)

    assert (counted["digests"], counted["heads"], counted["reads"]) == (2, 1, 1)
    assert not [one for one in await integration.events() if one.type.startswith("course.")]
    assert (await integration.state()).course_count == 2
