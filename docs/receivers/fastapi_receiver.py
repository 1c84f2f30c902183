# pip install fastapi uvicorn standardwebhooks
# WEBHOOK_SECRET=whsec_... uvicorn fastapi_receiver:app --port 9000
import os
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from standardwebhooks import Webhook, WebhookVerificationError

app = FastAPI()
webhook = Webhook(os.environ["WEBHOOK_SECRET"])


@app.post("/", status_code=204)
async def receive(request: Request) -> None:
    try:
        event = webhook.verify(await request.body(), dict(request.headers))
    except WebhookVerificationError as error:  # forged or too old
        raise HTTPException(400, "invalid signature") from error
    await run_in_threadpool(handle, event)


def handle(event: dict[str, Any]) -> None:
    print(event["type"], event["data"].get("course_id"), flush=True)  # store the event here
