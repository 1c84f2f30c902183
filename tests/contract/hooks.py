"""Values that Schemathesis can't know: of the formats that the API's schema names, and keys.

It loads this file as `hooks`. The wrong values of a format are its own.
"""

from __future__ import annotations

import base64
import re
import uuid
from typing import Any

import schemathesis
from hypothesis import strategies as st

from service.api.access.idempotency import HEADER


def _cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


_moments = st.integers(0, 2_000_000_000_000)
_ids = st.text("0123456789abcdefghjkmnpqrstvwxyz", min_size=20, max_size=20)

schemathesis.openapi.format(
    "list-cursor", st.builds(lambda at, one: _cursor(f"{at} sub_{one}"), _moments, _ids)
)
schemathesis.openapi.format("log-cursor", _moments.map(lambda at: _cursor(f"{at}-0")))
schemathesis.openapi.format(
    "delivery-cursor",
    st.builds(lambda at, one: _cursor(f"delivery {at << 20} sub_{one}"), _moments, _ids),
)
schemathesis.openapi.format(
    "scan-cursor", st.integers(0, 2**64 - 1).map(lambda number: _cursor(f"scan {number} "))
)
schemathesis.openapi.format(
    "signing-secret",
    st.binary(min_size=24, max_size=64).map(lambda key: f"whsec_{base64.b64encode(key).decode()}"),
)
schemathesis.openapi.format(
    "pasted-key",
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=500),
)
# Only addresses of this machine, where nothing listens on these ports.
schemathesis.openapi.format(
    "uri", st.integers(1, 9).map(lambda port: f"https://127.0.0.1:{port}/hook")
)


@schemathesis.hook
def map_headers(
    context: schemathesis.HookContext, headers: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Gives each request an idempotency key of its own.

    The API repeats its response to a key, also after the created resource was deleted.
    """
    del context
    if headers and re.fullmatch(r"[\x21-\x7e]{1,255}", str(headers.get(HEADER, ""))):
        return {**headers, HEADER: str(uuid.uuid4())}
    return headers
