"""`coursewire apply` over the real API."""

from __future__ import annotations

import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FILE = """
integrations:
  - external_id: tenant-42
    name: Workday of Acme
    base_url: http://127.0.0.1:8990/v1
    api_key: ${KOMBO_KEY}
    upstream_id: workday:a
    labels: {region: eu}
    guards: {deleted_share: 0.3}
subscriptions:
  - description: search index
    url: http://127.0.0.1:9000/
    headers: {Authorization: "Bearer ${KOMBO_KEY}"}
    event_types: [course.updated, course.created]
"""


@pytest.fixture
def apply(cli, monkeypatch):
    """Applies a file, and gives the items and the outcome."""
    monkeypatch.setenv("KOMBO_KEY", "hush-hush")

    def apply(file, *arguments: str, code: int = 0) -> list[dict]:
        text = file if isinstance(file, str) else yaml.safe_dump(file)
        result = cli.sync("apply", "-f", "-", *arguments, given=text)
        assert result.exit_code == code, (result.output, result.exception)
        assert "hush-hush" not in result.output
        return json.loads(result.stdout)["items"] if result.stdout else []

    return apply


@pytest.fixture
def held(cli):
    """What the API holds."""

    def held(kind: str) -> list[dict]:
        return json.loads(cli.sync(kind, "list", "--all").stdout)["items"]

    return held


def actions(items: list[dict]) -> list[str]:
    return [item["action"] for item in items]


def test_a_file_is_applied_and_then_nothing_is_left_to_do(apply, held):
    assert actions(apply(FILE, "--dry-run")) == ["create", "create"]
    assert held("integrations") == held("subscriptions") == []
    made = apply(FILE)
    assert [one["id"] for one in made] == [
        held("integrations")[0]["id"],
        held("subscriptions")[0]["id"],
    ]
    before = held("subscriptions")
    assert actions(apply(FILE)) == ["none", "none"]
    assert held("subscriptions") == before


def test_a_difference_is_shown_and_then_made(apply, held):
    apply(FILE)
    changed = FILE.replace("0.3", "0.4").replace("9000", "9001")
    integration, subscription = apply(changed, "--dry-run")
    assert integration["differences"]["guards"] == {
        "before": {"deleted_share": 0.3},
        "after": {"deleted_share": 0.4},
    }
    assert subscription["differences"] == {
        "url": {"before": "http://127.0.0.1:9000/", "after": "http://127.0.0.1:9001/"}
    }
    assert held("subscriptions")[0]["url"] == "http://127.0.0.1:9000/"
    apply(changed)
    assert held("subscriptions")[0]["url"] == "http://127.0.0.1:9001/"
    assert held("integrations")[0]["guards"]["deleted_share"] == 0.4
    sent = apply(changed, "--resend-secrets")
    assert actions(sent) == ["none", "edit"]


def test_items_fail_by_themselves(apply, held):
    file = yaml.safe_load(FILE)
    file["integrations"][0]["upstream_id"] = ""
    refused, made = apply(file, code=1)
    assert "upstream_id" in refused["error"]
    assert (made["error"], len(held("subscriptions"))) == (None, 1)
    assert held("integrations") == []


def test_only_pruning_deletes_and_it_asks(apply, held, cli):
    apply(FILE)
    cli.sync("subscriptions", "create", "--url", "http://127.0.0.1:9000/")
    none = {"subscriptions": []}
    apply(none)
    assert len(held("subscriptions")) == 2
    assert apply(none, "--prune", code=2) == []  # nobody can answer
    assert actions(apply(none, "--prune", "--dry-run")) == ["delete"]
    assert len(held("subscriptions")) == 2
    apply(none, "--prune", "--yes")
    (left,) = held("subscriptions")
    assert left["description"] is None
    assert len(held("integrations")) == 1  # the file does not speak of them


def test_subscriptions_of_a_key_are_neither_taken_over_nor_pruned(apply, held, cli):
    made = cli.sync(
        "api-key", "create", "--name", "a", "--scope", "subscriber", "--get", "id", "--label", "a=b"
    )
    url = ("--url", "http://127.0.0.1:9000/")
    owned = ("--description", "search index", "--owner", made.stdout.strip())
    assert cli.sync("subscriptions", "create", *url, *owned).exit_code == 0
    assert actions(apply(FILE, "--prune", "--yes")) == ["create", "create"]
    assert actions(apply({"subscriptions": []}, "--prune", "--yes")) == ["delete"]
    (left,) = held("subscriptions")
    assert left["owner"] == made.stdout.strip()


def test_people_read_the_difference(cli, apply, monkeypatch):
    monkeypatch.setattr("service.commands.options.on_terminal", lambda _stream: True)
    monkeypatch.setenv("COLUMNS", "20")
    made = cli.sync("apply", "-f", "-", given=FILE).output
    assert "+ integrations tenant-42 (int_" in made
    assert "    api_key: ***\n" in made
    assert made.endswith("2 created, 0 changed, 0 deleted, 0 unchanged, 0 failed\n")
    shown = cli.sync("apply", "-f", "-", "--dry-run", given=FILE.replace("9000", "9001")).output
    assert "    url: http://127.0.0.1:9000/ -> http://127.0.0.1:9001/\n" in shown
    assert shown.endswith("Would be: 0 created, 1 changed, 0 deleted, 1 unchanged, 0 failed\n")


# --- applying twice changes nothing -----------------------------------------------------------


def optional(**fields):
    return st.fixed_dictionaries({}, optional=fields)


LABELS = st.dictionaries(st.sampled_from("abc"), st.text("xyz é", min_size=1).filter(str.strip))
INTEGRATION = optional(
    name=st.sampled_from(["a", "b"]),
    labels=LABELS,
    delta_interval_seconds=st.integers(1, 3),
    baseline=st.sampled_from(["silent", "emit"]),
    ignore_paths=st.lists(st.sampled_from(["provider", "revisions.title"]), unique=True),
    track_remote_data=st.booleans(),
    guards=optional(deleted_share=st.sampled_from([0, 0.5, 1]), deleted_count=st.integers(1, 3)),
    paused=st.booleans(),
)
SUBSCRIPTION = optional(
    event_types=st.none()
    | st.lists(
        st.sampled_from(["course.created", "course.updated", "integration.*"]),
        min_size=1,
        unique=True,
    ),
    labels=st.none() | LABELS.filter(bool),
    changed=st.none() | st.just(["provider"]),
    payload=st.sampled_from(["full", "thin"]),
    headers=st.dictionaries(st.sampled_from(["X-A", "x-b"]), st.just("1")),
    max_concurrency=st.integers(1, 3),
    rate_per_second=st.none() | st.sampled_from([1, 0.5]),
    timeout_seconds=st.sampled_from([1, 2.5]),
    retry_schedule_seconds=st.lists(st.integers(1, 9), max_size=3),
    paused=st.booleans(),
    **{"from": st.sampled_from(["now", "oldest"])},
)


@st.composite
def files(draw) -> dict:
    names = st.sets(st.sampled_from("xyz"))
    base = {"base_url": "http://127.0.0.1:8990/v1", "api_key": "k"}
    return {
        "integrations": [
            {"external_id": name, "name": name, "upstream_id": f"u:{name}", **base}
            | draw(INTEGRATION)
            for name in sorted(draw(names))
        ],
        "subscriptions": [
            {"description": name, "url": f"http://127.0.0.1:9000/{name}"} | draw(SUBSCRIPTION)
            for name in sorted(draw(names))
        ],
    }


@pytest.mark.slow  # its examples make a hundred requests each
@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(first=files(), second=files())
def test_applying_twice_changes_nothing(apply, held, first, second):
    apply(first, "--prune", "--yes")
    apply(second, "--prune", "--yes")
    after = held("integrations"), held("subscriptions")
    assert {one["external_id"] for one in after[0]} == {
        one["external_id"] for one in second["integrations"]
    }
    assert set(actions(apply(second, "--prune"))) <= {"none"}
    assert (held("integrations"), held("subscriptions")) == after
