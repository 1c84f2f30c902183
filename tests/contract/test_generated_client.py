"""A client that is generated from the schema registers, subscribes and reads events."""

from __future__ import annotations

import base64
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from redis import Redis

from deploy.documents import documents
from service.storage.redis import keys
from tests.contract.conftest import TOKEN, Api

pytestmark = pytest.mark.slow

PACKAGE = "coursewire_client"
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory):
    """Imports modules of the generated client."""
    directory = tmp_path_factory.mktemp("generated")
    (directory / "openapi.json").write_text(documents()["docs/openapi.json"])
    made = subprocess.run(
        [
            *(BIN / "openapi-python-client", "generate", "--path", "openapi.json"),
            *("--output-path", PACKAGE, "--meta", "none", "--fail-on-warning"),
        ],
        cwd=directory,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    sys.path.insert(0, str(directory))

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"{PACKAGE}{name}")

    yield load
    sys.path.remove(str(directory))
    for name in [name for name in sys.modules if name.startswith(PACKAGE)]:
        del sys.modules[name]


def append_event(url: str, integration: str) -> None:
    """An event in the log, as a poll would have appended it."""
    facts = {
        "integration_id": integration,
        "upstream_id": "workday:a",
        "external_id": None,
        "labels": {"region": "eu"},
        "course_id": "c1",
        "remote_id": None,
        "origin_id": None,
        "changed": ["provider"],
        "reason": None,
        "evidence": None,
        "initial": False,
        "detected_by": "delta",
    }
    fields = {
        "t": "course.updated",
        "i": integration,
        "c": "c1",
        "x": "abcdefghjkmn",
        "s": 5,
        "p": 0,
        "m": json.dumps(facts),
        "b": json.dumps({"id": "c1"}),
    }
    with Redis.from_url(url) as redis:
        redis.xadd(keys.EVENTS, fields)


def test_a_generated_client_registers_subscribes_and_reads(
    client, api: Api, valkey_admin_url
) -> None:
    models = client(".models")
    with client("").AuthenticatedClient(base_url=api.url, token=TOKEN) as connection:
        integration = client(".api.integrations.register_integration").sync(
            client=connection,
            body=models.IntegrationCreate(
                name="Workday of Acme",
                upstream_id="workday:a",
                base_url="https://127.0.0.1:9/v1",
                api_key="key",
                labels=models.IntegrationCreateLabels.from_dict({"region": "eu"}),
            ),
        )
        assert isinstance(integration, models.IntegrationView)
        assert (integration.state, integration.labels["region"]) == ("pending", "eu")

        subscription = client(".api.subscriptions.create_subscription").sync(
            client=connection,
            body=models.SubscriptionCreate(
                url="https://127.0.0.1:9/hook", integration_ids=[integration.id]
            ),
        )
        assert isinstance(subscription, models.SubscriptionView)
        assert base64.b64decode(subscription.secret.removeprefix("whsec_"))

        append_event(valkey_admin_url, integration.id)
        read = client(".api.events.list_events")
        page = read.sync(client=connection, integration_id=integration.id)
        assert isinstance(page, models.EventList)
        assert [event.type_ for event in page.items] == ["course.updated"]
        assert page.items[0].data["course"] == {"id": "c1"}
        assert read.sync(client=connection, after=page.cursor).items == []

        listed = client(".api.subscriptions.list_subscriptions").sync(client=connection, limit=10)
        assert [one.id for one in listed.items] == [subscription.id]

        problem = read.sync(client=connection, integration_id="nonsense")
        assert isinstance(problem, models.ProblemDocument)
        assert problem.type_ == models.ProblemDocumentType.URNCOURSEWIREPROBLEMVALIDATION
        assert [error.field for error in problem.errors] == ["integration_id"]
