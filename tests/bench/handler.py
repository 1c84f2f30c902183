"""A process with one Litestar handler that gives the bytes of a file, to compare the API with.

Run as `python -m tests.bench.handler PORT FILE`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn
from litestar import Litestar, MediaType, Response, get


def main(port: int, body: bytes) -> None:
    """Serves until it is ended."""

    @get("/v1/subscriptions/{subscription_id:str}")
    async def show(subscription_id: str) -> Response[bytes]:
        return Response(body, media_type=MediaType.JSON)

    @get("/readyz")
    async def readyz() -> dict[str, str]:
        return {"status": "ok"}

    app = Litestar([show, readyz], openapi_config=None, logging_config=None)
    uvicorn.run(app, port=port, log_config=None, access_log=False, server_header=False)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]).read_bytes())
