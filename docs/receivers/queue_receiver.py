# pip install fastapi uvicorn standardwebhooks redis
# WEBHOOK_SECRET=whsec_... REDIS_URL=redis://... uvicorn queue_receiver:app --port 9000
import os

from fastapi import FastAPI, HTTPException, Request
from redis.asyncio import Redis
from standardwebhooks import Webhook, WebhookVerificationError

app = FastAPI()
redis = Redis.from_url(os.environ["REDIS_URL"])
webhook = Webhook(os.environ["WEBHOOK_SECRET"])


@app.post("/", status_code=204)
async def receive(request: Request) -> None:
    body = await request.body()
    try:
        webhook.verify(body, dict(request.headers))
    except WebhookVerificationError as error:  # forged or too old
        raise HTTPException(400, "invalid signature") from error
    # If the write to Redis fails, the receiver answers 500 and Coursewire retries.
    await redis.xadd("course-events", {"id": request.headers["webhook-id"], "body": body})
