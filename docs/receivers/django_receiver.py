# pip install django standardwebhooks
# In urls.py: path("webhooks/coursewire", django_receiver.receive)
import os
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST
from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(os.environ["WEBHOOK_SECRET"])


@csrf_exempt
@require_POST
def receive(request: HttpRequest) -> HttpResponse:
    try:
        event = webhook.verify(request.body, dict(request.headers))
    except WebhookVerificationError:  # forged or too old
        return HttpResponse("invalid signature", status=400)
    handle(event)
    return HttpResponse(status=204)


def handle(event: dict[str, Any]) -> None:
    print(event["type"], event["data"].get("course_id"), flush=True)  # store the event here
