"""Writes the documents that follow from the code: run by `make docs`, and by the test of them."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from service.api.schema.document import catalogue_table, published
from service.app import create_app
from service.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
_PROBLEMS = """# Problems

What the API answers with when it cannot do what was asked: a document of RFC 9457, with the
content type `application/problem+json`. Its `type` is `urn:coursewire:problem:` and one of the
names below; there are no others. `detail` says what is wrong this time. A `validation` problem
lists every field that cannot be accepted in `errors`, with its path, what is wrong and what to do;
an `integration-exists` problem names the other one in `existing_id`; a `credential-in-use` problem
names the first 20 integrations in `integrations` and counts them in `integration_count`; a
`cursor-expired` problem says in `oldest_cursor` where to go on.

"""


def documents() -> dict[str, str]:
    """Their paths in the repository, and what they say."""
    # Nothing is opened or served: a token and a key are there because an API needs them.
    app = create_app(Settings(admin_token="x" * 16, encryption_keys=(bytes(32),)))
    document = msgspec.json.encode(published(app, app.openapi_schema.to_schema()))
    return {
        "docs/openapi.json": msgspec.json.format(document, indent=1).decode() + "\n",
        "docs/problems.md": f"{_PROBLEMS}{catalogue_table()}\n",
    }


if __name__ == "__main__":
    for name, text in documents().items():
        (ROOT / name).write_text(text)
        sys.stdout.write(f"{name} is written\n")
