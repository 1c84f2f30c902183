from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from service.domain.courses.fingerprint import Fingerprint
from service.domain.errors import UpstreamAuthError
from service.domain.events.event import MAX_BODY_BYTES
from service.domain.polling.integration import Decision
from service.domain.polling.triage import Mark
from service.domain.review.guards import Withheld
from service.storage.polling.catalogue import Batch, Change, Progress
from service.storage.redis import keys
from service.storage.scheduling.leases import Lease

INLINE = {
    "name": "Workday",
    "upstream_id": "workday:1",
    "base_url": "https://api.kombo.dev/v1",
    "api_key": "key-1",
}
DEFAULTS = {
    "deleted_count": 10,
    "deleted_share": 0.15,
    "deleted_share_max": 0.5,
    "changed_count": 20,
    "changed_share": 0.5,
}
TOMBSTONE = Withheld(kind="tombstone", raw=b"r" * 16)
ABSENCE = Withheld(kind="absence")
UPDATE = Withheld(kind="update", paths={"provider": b"12345", "revisions.title": b"67890"})


@pytest.fixture
async def integration(client) -> dict:
    answer = await client.post("/v1/integrations", json=INLINE)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def path(integration) -> str:
    return f"/v1/integrations/{integration['id']}/review"


@pytest.fixture
async def mark(services, integration):
    """Commits marks on courses that are known and live."""
    progress = b""

    async def mark(*marks: Mark) -> None:
        nonlocal progress
        _, state = await services.integrations.get(integration["id"])
        lease = Lease("polls", integration["id"], "token", 60_000)
        await services.redis.set(lease.key, "token")
        before, progress = progress, progress + b" "
        await services.catalogue.commit(
            lease,
            epoch=state.epoch,
            poll_id="poll_1",
            subscriptions_version=0,
            progress=Progress(before, progress),
            batch=Batch(
                changes=[
                    Change(
                        course_id=one.course_id,
                        fingerprint=Fingerprint(
                            deleted=False,
                            raw=bytes(16),
                            paths=bytes(95),
                            remote_id="1",
                            origin_id=None,
                        ),
                    )
                    for one in marks
                ],
                marks=marks,
            ),
            increments=Counter(),
        )
        await services.redis.delete(lease.key)

    yield mark
    # What is stored of the poll is none that the API could show.
    await services.redis.hdel(keys.integration(integration["id"]), "poll")


async def hold(mark, *withheld: Withheld) -> None:
    await mark(*(Mark(f"c{number}", "hold", one.pack()) for number, one in enumerate(withheld)))


async def decided(services, integration, decision: Decision) -> None:
    _, state = await services.integrations.get(integration["id"])
    review = await services.reviews.get(integration["id"], state.epoch)
    await services.reviews.decide(integration["id"], state.epoch, review.version, decision)


# --- showing --------------------------------------------------------------------------------


async def test_where_nothing_is_held_the_review_says_so(client, path, integration) -> None:
    answer = await client.get(path)
    assert answer.status_code == 200
    assert answer.json() == {
        "integration_id": integration["id"],
        "state": "none",
        "since": None,
        "decision": None,
        "subscriptions_not_informed": None,
        "deleted": 0,
        "changed": {},
        "exceeded": [],
        "preview": None,
        "items": [],
        "next": None,
    }
    assert answer.headers["etag"] == '"0"'


async def test_what_is_held_is_shown_with_kind_evidence_and_paths(client, path, mark) -> None:
    await hold(mark, TOMBSTONE, ABSENCE, UPDATE)
    shown = (await client.get(path)).json()
    assert shown["state"] == "open"
    assert shown["since"].endswith("Z")
    assert (shown["deleted"], shown["changed"]) == (2, {"provider": 1, "revisions.title": 1})
    assert sorted(shown["items"], key=lambda one: one["course_id"]) == [
        {
            "course_id": course_id,
            "remote_id": "1",
            "kind": kind,
            "evidence": evidence,
            "changed": changed,
            "upstream": None,
        }
        for course_id, kind, evidence, changed in (
            ("c0", "deleted", "tombstone", []),
            ("c1", "deleted", "absence", []),
            ("c2", "updated", None, ["provider", "revisions.title"]),
        )
    ]


async def test_what_is_held_makes_the_integrations_state(client, path, mark, integration) -> None:
    await hold(mark, TOMBSTONE, UPDATE)
    page = (await client.get(f"/v1/integrations/{integration['id']}/courses")).json()
    assert {one["state"] for one in page["items"]} == {"held"}


async def test_pages_hold_no_more_than_asked_for_and_share_one_etag(client, path, mark) -> None:
    await hold(mark, *[ABSENCE] * 7)
    seen, etags, cursor = [], set(), ""
    while cursor is not None:
        answer = await client.get(f"{path}?limit=3{cursor}")
        page = answer.json()
        assert len(page["items"]) <= 3
        assert page["deleted"] == 7
        seen += [one["course_id"] for one in page["items"]]
        etags.add(answer.headers["etag"])
        cursor = page["next"] and f"&after={page['next']}"
    assert sorted(seen) == [f"c{number}" for number in range(7)]
    assert len(etags) == 1


async def test_the_etag_names_the_whole_set(client, path, mark) -> None:
    await hold(mark, ABSENCE)
    first = (await client.get(path)).headers["etag"]
    assert (await client.get(path)).headers["etag"] == first
    await mark(Mark("other", "hold", ABSENCE.pack()))
    second = (await client.get(path)).headers["etag"]
    assert second != first
    await mark(Mark("other", "hold", ABSENCE.pack()))  # the same once more
    assert (await client.get(path)).headers["etag"] == second
    await mark(Mark("other", "keep", TOMBSTONE.pack()))
    assert (await client.get(path)).headers["etag"] != second


@pytest.mark.parametrize(("query", "field"), [("after=x", "after"), ("limit=0", "limit")])
async def test_a_query_that_is_none_is_refused(client, refused, path, query, field) -> None:
    refused(await client.get(f"{path}?{query}"), field)


async def test_there_is_no_review_of_an_unknown_integration(client, problem) -> None:
    problem(await client.get("/v1/integrations/int_none/review"), "not-found", 404)
    answer = await client.post(
        "/v1/integrations/int_none/review",
        json={"decision": "publish"},
        headers={"if-match": '"1"'},
    )
    problem(answer, "not-found", 404)


async def test_a_review_is_for_those_who_may_see_it(anonymous, path, problem) -> None:
    del anonymous.headers["authorization"]
    problem(await anonymous.get(path), "unauthorized", 401)
    problem(await anonymous.post(path, json={"decision": "publish"}), "unauthorized", 401)


# --- previewing -----------------------------------------------------------------------------


async def previewed(client, path, query="preview=20") -> tuple[dict, dict]:
    review = (await client.get(f"{path}?{query}")).json()
    return review["preview"], {one["course_id"]: one["upstream"] for one in review["items"]}


async def test_a_preview_shows_what_the_upstream_has_now(
    client, path, mark, upstream, integration
) -> None:
    await mark(
        *(
            Mark(course_id, "hold", TOMBSTONE.pack())
            for course_id in ("gone", "live", "absent", "broken", "with,comma", "large")
        )
    )
    upstream.results = [
        msgspec.Raw(record)
        for record in (
            b'{"id":"gone","remote_deleted_at":"2026-01-01T00:00:00Z"}',
            b'{"id":"live","remote_deleted_at":null,"provider":"p"}',
            b'{"id":"broken","remote_deleted_at":7}',
            b'{"id":"large","remote_deleted_at":null,"x":"%s"}' % (b"x" * MAX_BODY_BYTES),
            b'{"id":"another","remote_deleted_at":null}',
        )
    ]
    upstream.asked.clear()

    outcome, courses = await previewed(client, path)

    assert outcome == {"ok": True, "records_seen": 5}
    live = {"id": "live", "remote_deleted_at": None, "provider": "p"}
    gone = {"id": "gone", "remote_deleted_at": "2026-01-01T00:00:00Z"}
    assert courses == {
        "gone": {"state": "deleted", "record": gone},
        "live": {"state": "live", "record": live},
        "absent": {"state": "absent", "record": None},
        "broken": {"state": "unreadable", "record": None},
        "with,comma": {"state": "not_requested", "record": None},
        "large": {"state": "live", "record": None},
    }
    ((_, upstream_id, query),) = upstream.asked
    assert upstream_id == integration["upstream_id"]
    assert sorted(query.ids) == ["absent", "broken", "gone", "large", "live"]
    assert query.include_deleted


async def test_a_preview_is_of_as_many_items_as_asked_for(client, path, mark, upstream) -> None:
    await hold(mark, *[ABSENCE] * 5)
    _, courses = await previewed(client, path, "preview=2")
    assert sum(one is not None for one in courses.values()) == 2
    assert len(upstream.asked[-1][2].ids) == 2


async def test_a_preview_that_fails_says_why(client, path, mark, upstream) -> None:
    await hold(mark, TOMBSTONE)
    upstream.error = UpstreamAuthError("refused", status=401)
    outcome, courses = await previewed(client, path)
    assert (outcome["ok"], outcome["status"]) == (False, 401)
    assert outcome["remedy"]
    assert courses == {"c0": None}


async def test_a_preview_leaves_to_polls_what_the_rate_limit_leaves(
    client, path, mark, upstream, services, integration
) -> None:
    await hold(mark, TOMBSTONE)
    credential_id = integration["credential_id"]
    await services.budgets.note(credential_id, limit=60, remaining=15, reset_seconds=30)
    upstream.asked.clear()
    for _ in range(3):
        outcome, _ = await previewed(client, path)
        assert outcome["code"] == "PLATFORM.RATE_LIMIT_EXCEEDED"
        assert "no request for 3" in outcome["message"]
    assert upstream.asked == []
    place = await services.budgets.spend(credential_id, "full", 0)
    assert place.wait_ms < 32_000  # nobody queues behind previews


async def test_a_preview_asks_the_upstream_so_it_needs_an_admin(
    client, path, mark, open_key, problem, refused
) -> None:
    await hold(mark, TOMBSTONE)
    reader = (await open_key("read"))["headers"]
    assert (await client.get(path, headers=reader)).status_code == 200
    problem(await client.get(f"{path}?preview=1", headers=reader), "forbidden", 403)
    for count in (0, 21, "x"):
        refused(await client.get(f"{path}?preview={count}"), "preview")


# --- deciding -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "being_done"),
    [("publish", "publishing"), ("accept_silently", "accepting_silently")],
)
async def test_a_decision_on_what_was_shown_is_taken_and_due_at_once(
    client, services, path, mark, integration, decision, being_done
) -> None:
    await hold(mark, TOMBSTONE, UPDATE)
    await services.redis.zrem(keys.due("polls"), integration["id"])
    etag = (await client.get(path)).headers["etag"]

    answer = await client.post(path, json={"decision": decision}, headers={"if-match": etag})

    assert answer.status_code == 202
    shown = answer.json()
    assert (shown["state"], shown["items"], shown["deleted"]) == (being_done, [], 0)
    assert answer.headers["etag"] != etag
    assert shown["decision"] == decision
    assert (await client.get(path)).json() == {**shown, "subscriptions_not_informed": None}
    (state,) = await services.integrations.get_many([integration["id"]])
    assert state[1].decision == decision
    (due,) = await services.schedule.next_at("polls", [integration["id"]])
    assert due is not None


@pytest.mark.parametrize(
    ("decision", "withheld", "not_informed"),
    [
        ("accept_silently", [TOMBSTONE, UPDATE], 3),
        ("accept_silently", [ABSENCE], 2),
        ("accept_silently", [UPDATE], 2),
        ("publish", [TOMBSTONE, UPDATE], None),
    ],
)
async def test_a_silent_decision_says_how_many_subscriptions_it_does_not_inform(
    client, path, mark, decision, withheld, not_informed
) -> None:
    await hold(mark, *withheld)
    for filters in (
        {},
        {"event_types": ["course.deleted"]},
        {"event_types": ["course.updated"], "changed": ["provider"]},
        {"event_types": ["course.updated"], "changed": ["custom_fields"]},
        {"event_types": ["course.created", "integration.review_required"]},
        {"labels": {"tenant": "another"}},
    ):
        answer = await client.post(
            "/v1/subscriptions", json={"url": "https://r.example", **filters}
        )
        assert answer.status_code == 201, answer.text
    etag = (await client.get(path)).headers["etag"]
    answer = await client.post(path, json={"decision": decision}, headers={"if-match": etag})
    assert answer.json()["decision"] == decision
    assert answer.json()["subscriptions_not_informed"] == not_informed


@pytest.mark.parametrize(
    "form", ['W/"{}"', '"{}-gzip"', 'W/"{}-br"', '"{};gzip"', '"1", "{}"', '"{}-gzip", "1"', "{}"]
)
async def test_what_proxies_make_of_the_tag_names_the_same_set(client, path, mark, form) -> None:
    await hold(mark, TOMBSTONE)
    tag = form.format((await client.get(path)).headers["etag"].strip('"'))
    answer = await client.post(path, json={"decision": "publish"}, headers={"if-match": tag})
    assert answer.status_code == 202, answer.text


async def test_a_decision_must_name_what_was_shown(client, path, mark, problem) -> None:
    await hold(mark, TOMBSTONE)
    document = problem(
        await client.post(path, json={"decision": "publish"}), "precondition-required", 428
    )
    assert "If-Match" in document["detail"]
    assert path in document["detail"]
    assert (await client.get(path)).json()["state"] == "open"


@pytest.mark.parametrize(
    "tag",
    ["", "*", "1", '"', '"x"', '""', 'W/"1"', '"-1"', '"1", "2"', '"1.5"', '"' + "9" * 17 + '"'],
)
async def test_what_is_no_etag_of_a_review_is_refused(client, path, mark, problem, tag) -> None:
    await hold(mark, TOMBSTONE)
    answer = await client.post(path, json={"decision": "publish"}, headers={"if-match": tag})
    problem(answer, "precondition-failed", 412)
    assert (await client.get(path)).json()["state"] == "open"


async def test_a_decision_on_what_has_changed_since_is_refused(client, path, mark, problem) -> None:
    await hold(mark, TOMBSTONE)
    etag = (await client.get(path)).headers["etag"]
    await mark(Mark("another", "hold", ABSENCE.pack()))

    answer = await client.post(path, json={"decision": "publish"}, headers={"if-match": etag})

    problem(answer, "precondition-failed", 412)
    shown = await client.get(path)
    assert (shown.json()["state"], shown.json()["deleted"]) == ("open", 2)
    answer = await client.post(
        path, json={"decision": "publish"}, headers={"if-match": shown.headers["etag"]}
    )
    assert answer.status_code == 202


async def test_where_nothing_is_held_there_is_nothing_to_decide_on(client, path, problem) -> None:
    etag = (await client.get(path)).headers["etag"]
    answer = await client.post(path, json={"decision": "publish"}, headers={"if-match": etag})
    assert "nothing" in problem(answer, "conflict", 409)["detail"]


async def test_what_is_no_longer_held_cannot_be_decided_on(client, path, mark, problem) -> None:
    await hold(mark, TOMBSTONE)
    etag = (await client.get(path)).headers["etag"]
    await mark(Mark("c0", "release"))
    assert (await client.get(path)).json()["state"] == "none"
    answer = await client.post(path, json={"decision": "publish"}, headers={"if-match": etag})
    problem(answer, "conflict", 409)


async def test_while_a_decision_is_carried_out_there_is_no_other(
    client, path, mark, services, integration, problem
) -> None:
    await hold(mark, TOMBSTONE)
    etag = (await client.get(path)).headers["etag"]
    await decided(services, integration, "publish")
    answer = await client.post(
        path, json={"decision": "accept_silently"}, headers={"if-match": etag}
    )
    assert "carried out" in problem(answer, "conflict", 409)["detail"]

    await mark(Mark("later", "hold", ABSENCE.pack()))  # something new is held meanwhile
    shown = await client.get(path)
    assert shown.json()["state"] == "open"
    answer = await client.post(
        path, json={"decision": "accept_silently"}, headers={"if-match": shown.headers["etag"]}
    )
    assert "carried out" in problem(answer, "conflict", 409)["detail"]


@pytest.mark.parametrize(
    ("document", "fields"),
    [
        ({}, ["decision"]),
        ({"decision": "publsh"}, ["decision"]),
        ({"decision": None}, ["decision"]),
        ({"decision": "publish", "force": True}, ["force"]),
    ],
)
async def test_a_decision_is_one_of_two(client, refused, path, mark, document, fields) -> None:
    await hold(mark, TOMBSTONE)
    errors = refused(await client.post(path, json=document, headers={"if-match": '"1"'}), *fields)
    if document.get("decision") == "publsh":
        assert errors["decision"]["remedy"] == "did you mean publish?"


async def test_the_body_must_be_an_object(client, path) -> None:
    headers = {"if-match": '"1"', "content-type": "application/json"}
    assert (await client.post(path, content=b"[", headers=headers)).status_code == 400
    assert (await client.post(path, content=b"[]", headers=headers)).status_code in (400, 422)


# --- guards ---------------------------------------------------------------------------------


async def test_guards_left_out_are_the_published_ones(client) -> None:
    created = await client.post(
        "/v1/integrations", json={**INLINE, "guards": {"deleted_share": 0.3, "changed_count": 5}}
    )
    assert created.json()["guards"] == {**DEFAULTS, "deleted_share": 0.3, "changed_count": 5}


async def test_an_edit_of_some_guards_leaves_the_others(client, integration) -> None:
    path = f"/v1/integrations/{integration['id']}"
    expected = dict(DEFAULTS)
    for edit in (
        {"deleted_count": 0},
        {"deleted_share": 1, "deleted_share_max": 1},
        {},
        {"changed_share": 0},
    ):
        answer = await client.patch(path, json={"guards": edit})
        assert answer.status_code == 200, answer.text
        expected |= edit
        assert answer.json()["guards"] == expected
    renamed = (await client.patch(path, json={"name": "renamed"})).json()
    assert (renamed["guards"], renamed["epoch"]) == (expected, integration["epoch"])


@pytest.mark.parametrize(
    ("guards", "fields"),
    [
        ({"deleted_count": -1}, ["guards.deleted_count"]),
        ({"deleted_count": 1.5}, ["guards.deleted_count"]),
        ({"deleted_count": True}, ["guards.deleted_count"]),
        ({"deleted_share": 1.01}, ["guards.deleted_share"]),
        ({"deleted_share": -0.1}, ["guards.deleted_share"]),
        ({"deleted_share": "0.5"}, ["guards.deleted_share"]),
        ({"deleted_share": True}, ["guards.deleted_share"]),
        ({"deleted_share_max": None}, ["guards.deleted_share_max"]),
        ({"changed_count": 0}, ["guards.changed_count"]),
        ({"changed_share": []}, ["guards.changed_share"]),
        ({"deleted": 5}, ["guards.deleted"]),
        ({"": 5}, ["guards."]),
        (
            {"deleted_count": "x", "changed_share": 2, "shares": 1},
            ["guards.deleted_count", "guards.changed_share", "guards.shares"],
        ),
        ([], ["guards"]),
        (None, ["guards"]),
        (5, ["guards"]),
    ],
)
async def test_wrong_guards_are_named_by_their_path(
    client, refused, integration, guards, fields
) -> None:
    refused(
        await client.post(
            "/v1/integrations", json={**INLINE, "upstream_id": "w:2", "guards": guards}
        ),
        *fields,
    )
    path = f"/v1/integrations/{integration['id']}"
    refused(await client.patch(path, json={"guards": guards, "name": "renamed"}), *fields)
    shown = (await client.get(path)).json()
    assert (shown["guards"], shown["name"]) == (DEFAULTS, INLINE["name"])


async def test_an_unknown_guard_is_told_which_there_are(client, refused, integration) -> None:
    answer = await client.patch(
        f"/v1/integrations/{integration['id']}", json={"guards": {"deleted_shares": 1}}
    )
    errors = refused(answer, "guards.deleted_shares")
    assert "deleted_share" in errors["guards.deleted_shares"]["remedy"]


def test_guards_read_back_as_they_were_stored() -> None:
    from service.domain.review.guards import Guards

    guards = Guards(deleted_count=0, changed_share=1.0)
    assert msgspec.json.decode(msgspec.json.encode(guards), type=Guards) == guards
