"""The published OpenAPI document: sound by the word of others, complete, and as committed."""

from __future__ import annotations

import json
import re

import msgspec
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from deploy.documents import ROOT, documents
from service.api.http.problem_types import CATALOGUE, TYPE_PREFIX
from service.api.http.problems import ProblemDocument
from service.api.schema.document import METHODS
from service.domain.events.event import CONTENT_TYPES

JSON = "application/json"
CODE = ("service", "workers", "tests")


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return documents()


@pytest.fixture(scope="module")
def document(written) -> dict:
    return json.loads(written["docs/openapi.json"])


def operations(document: dict) -> list[tuple[str, dict]]:
    return [
        (f"{method.upper()} {path}", item[method])
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    ]


def resolver(document: dict, schema: dict) -> Draft202012Validator:
    """Judges by `schema`, which may refer to other parts of the document."""
    return Draft202012Validator(
        {**schema, "components": document["components"]},
        format_checker=Draft202012Validator.FORMAT_CHECKER,
    )


def test_the_committed_copies_are_current(written) -> None:
    pages = {f"docs/{name}.md" for name in ("problems", "metrics", "settings")}
    assert {"docs/openapi.json"} | pages < set(written)
    for name, text in written.items():
        assert (ROOT / name).read_text() == text, f"{name}: run `make docs`, and look at it"


def test_every_file_that_architecture_and_decisions_name_is_there() -> None:
    files = [f"/{path.relative_to(ROOT)}" for top in CODE for path in (ROOT / top).rglob("*.*")]
    for page in [ROOT / "docs/architecture.md", *(ROOT / "docs/decisions").glob("*.md")]:
        for name in re.findall(r"`([\w/.]+\.(?:py|lua))`", page.read_text()):
            assert any(file.endswith(f"/{name}") for file in files), f"{page.name}: {name}"


def test_an_outside_validator_finds_nothing(document) -> None:
    assert document["openapi"].startswith("3.1")
    assert [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


def test_every_object_has_an_example_that_is_one(document) -> None:
    for name, schema in document["components"]["schemas"].items():
        assert schema["examples"], name
        for example in schema["examples"]:
            resolver(document, schema).validate(example)
            # Nothing is left over from fields that are no more.
            assert set(example) <= set(schema["properties"]), name


def test_every_body_has_an_example_that_is_one(document) -> None:
    for name, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            assert content["examples"], name
            for example in content["examples"].values():
                resolver(document, content["schema"]).validate(example["value"])


def test_every_operation_says_who_may_what_it_takes_and_what_it_answers(document) -> None:
    shared = document["components"]["responses"]
    identifiers = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(identifiers)) == len(identifiers)
    for name, operation in operations(document):
        statuses = set(operation["responses"])
        assert re.fullmatch("[a-z][A-Za-z]+", operation["operationId"]), name
        assert any(status.startswith("2") for status in statuses), name
        if " /v1/" in name:
            assert operation["security"], name
            assert {"401", "403", "429", "500", "503"} <= statuses, name
        if "requestBody" in operation:
            assert {"400", "413", "415", "422"} <= statuses, name
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], name
        for status, response in operation["responses"].items():
            found = shared[response["$ref"].rpartition("/")[2]] if "$ref" in response else response
            assert found["headers"]["x-request-id"], (name, status)


def test_every_problem_is_documented_with_an_example(document) -> None:
    schema = document["components"]["schemas"]["ProblemDocument"]
    assert schema["properties"]["type"]["enum"] == [TYPE_PREFIX + one.name for one in CATALOGUE]
    for problem in CATALOGUE:
        example = msgspec.convert(problem.example(), ProblemDocument)
        assert (example.status, example.title) == (problem.status, problem.title)
    for response in document["components"]["responses"].values():
        (content,) = response["content"].values()
        for name, example in content["examples"].items():
            assert example["value"]["type"] == TYPE_PREFIX + name
            resolver(document, schema).validate(example["value"])


def test_the_pushed_events_are_webhooks_in_both_forms(document) -> None:
    for item in document["webhooks"].values():
        assert set(item["post"]["requestBody"]["content"]) == set(CONTENT_TYPES.values())


def test_what_is_made_is_linked_to_what_uses_it(document) -> None:
    made = document["paths"]["/v1/subscriptions"]["post"]["responses"]["201"]
    assert {"showSubscription", "changeSubscription", "deleteSubscription"} <= set(made["links"])
    known = {operation["operationId"] for _, operation in operations(document)}
    for name, operation in operations(document):
        for response in operation["responses"].values():
            assert set(response.get("links", {})) <= known, name
