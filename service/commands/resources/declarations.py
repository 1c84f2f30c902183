"""The declared commands: for each resource its verbs, and the operation that each runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Hint(NamedTuple):
    """The remedy if a field of a response, or of an item in it, has a value."""

    path: str
    value: str
    text: str
    operation: str = ""  # the request for the etag, with the same arguments


class Verb(NamedTuple):
    """One command. The inputs of its operation, except those fixed here, are its options."""

    operation: str
    help: str = ""  # instead of the operation's own summary and description
    columns: str = ""  # of its table, if they differ from those of the resource
    body: Mapping[str, Any] = {}  # values that it always sends
    query: Mapping[str, Any] = {}  # values that it sends unless an option replaces them
    table: Mapping[str, Any] = {}  # the fields that a table needs
    ask: str = ""  # the question to confirm
    done: str = ""  # the message for a response without content
    once: str = ""  # the field that no later response contains
    good: Mapping[
        str, Any
    ] = {}  # the response's field that decides the exit code, and its good value
    follows: bool = False  # whether `--follow` waits for new events
    argument: str = ""  # the query field that is an argument
    view: str = ""  # the function in views.py that prints it on a terminal
    hint: Hint | None = None  # remedies for some responses


class Resource(NamedTuple):
    """A group of commands. Columns are paths into an item; `#` counts a list, -1 is its last
    element."""

    help: str
    columns: str
    verbs: Mapping[str, Verb]
    examples: str = ""


_POLLS = "id kind state started_at duration_seconds records changes error"
_HELD = "course_id remote_id kind evidence changed"
_OK = {"ok": True}
_LATEST = "attempts.-1."

RESOURCES: Mapping[str, Resource] = {
    "integrations": Resource(
        "Connected learning systems, their polls and courses.",
        "id name external_id state course_count held error.code next_poll_at",
        {
            "list": Verb("listIntegrations"),
            "show": Verb("showIntegration"),
            "create": Verb("registerIntegration"),
            "edit": Verb("changeIntegration"),
            "delete": Verb(
                "deleteIntegration",
                ask="Delete {0}, with all records of its courses?",
                done="deleted",
            ),
            "check-values": Verb("tryValues", good=_OK),
            "check": Verb("tryIntegration", good=_OK),
            "poll": Verb("requestPoll"),
            "polls": Verb("listPolls", columns=_POLLS),
            "show-poll": Verb("showPoll"),
            "pause": Verb(
                "changeIntegration",
                "Stop polling an integration. Its deliveries continue.",
                body={"paused": True},
            ),
            "resume": Verb(
                "changeIntegration",
                "Poll a paused integration again.",
                body={"paused": False},
            ),
            "courses": Verb(
                "listCourses", columns="course_id remote_id state sequence last_event_id reason"
            ),
            "show-course": Verb("showCourse"),
        },
        """\
coursewire integrations check-values --base-url https://api.kombo.dev/v1 \\
    --api-key @kombo-key.txt --upstream-id workday:...
coursewire integrations create --name 'Workday of Acme' --external-id tenant-42 \\
    --base-url https://api.kombo.dev/v1 --api-key @kombo-key.txt --upstream-id workday:...
coursewire integrations poll int_... --kind full
coursewire integrations list --state error,review""",
    ),
    "subscriptions": Resource(
        ("Receivers of events, their filters and their signing secrets."),
        "id description url owner state pending dead oldest_pending_at",
        {
            "list": Verb("listSubscriptions"),
            "show": Verb("showSubscription"),
            "create": Verb("createSubscription"),
            "edit": Verb("changeSubscription"),
            "delete": Verb(
                "deleteSubscription",
                ask="Delete {0}, with the deliveries that are pending or dead?",
                done="deleted",
            ),
            "test": Verb(
                "sendTestEvent",
                good={"outcome": "delivered"},
                hint=Hint(
                    "state",
                    "parked",
                    "It is parked. To send now: coursewire subscriptions retry {id}",
                    "showSubscription",
                ),
            ),
            "pause": Verb(
                "changeSubscription",
                ("Stop sending to a subscription. Its events are queued meanwhile."),
                body={"paused": True},
            ),
            "resume": Verb("resumeSubscription"),
            "retry": Verb("retryPendingDeliveries"),
            "skip": Verb(
                "skipPendingDeliveries", ask="Drop pending deliveries of {0}? They are not sent."
            ),
            "secret": Verb("showSubscriptionSecret"),
            "rotate-secret": Verb("rotateSubscriptionSecret"),
            "statistics": Verb("showSubscriptionStatistics", view="statistics"),
        },
        """\
coursewire subscriptions create --url https://example.com/webhooks --description 'search index'
coursewire subscriptions secret sub_... --get secret
coursewire subscriptions test sub_...
coursewire subscriptions edit sub_... --url https://example.com/other --label region=eu
coursewire subscriptions resume sub_...""",
    ),
    "deliveries": Resource(
        "The state of each delivery, with every attempt.\n\n"
        "To send again: `subscriptions retry` makes deliveries that wait for a retry due now, "
        "`subscriptions resume` resumes a disabled or paused subscription, `events redeliver` "
        "sends one event again, `replays create` sends dead or missing events again.",
        f"event_id event_type course_id subscription_id state reason attempts.# {_LATEST}at "
        f"{_LATEST}outcome {_LATEST}answer next_attempt_at",
        {
            "list": Verb(
                "listDeliveries",
                hint=Hint(
                    "state",
                    "retrying",
                    "To retry now: coursewire subscriptions retry {subscription_id}",
                ),
            ),
            "show": Verb(
                "listDeliveries",
                ("Show the deliveries of an event: every attempt with the receiver's response."),
                argument="event_id",
                view="fields",
            ),
        },
        """\
coursewire deliveries list --state retrying
coursewire deliveries show evt_...
coursewire deliveries list --subscription-id sub_... --state pending,dead --json""",
    ),
    "events": Resource(
        "Detected events, newest first; --follow waits for more.",
        "data.event_id timestamp type data.integration_id data.course_id data.changed",
        {
            "list": Verb(
                "listEvents",
                "List detected events, newest first unless --order is given.\n\n"
                "--follow waits for events instead, oldest first. A filtered page can contain few "
                "events, or none, although more events follow.",
                query={"order": "desc"},
                table={"payload": "thin"},
                follows=True,
            ),
            "show": Verb("showEvent"),
            "redeliver": Verb("redeliverEvent"),
        },
        """\
coursewire events --follow
coursewire events list --type course.deleted --since 2026-11-24
coursewire events redeliver evt_... --subscription-id sub_...""",
    ),
    "reviews": Resource(
        "Changes that exceed limits and wait for a decision.",
        "id name external_id held",
        {
            "list": Verb(
                "listIntegrations",
                "List the integrations whose changes wait for a decision.",
                query={"state": ["review"]},
            ),
            "show": Verb("showReview", columns=_HELD, view="review"),
            "publish": Verb(
                "decideReview",
                (
                    "Publish the held changes. Coursewire requests these courses from the upstream "
                    "again, and sends events for their current state."
                ),
                columns=_HELD,
                body={"decision": "publish"},
                ask="Send events for these changes?",
            ),
            "accept-silently": Verb(
                "decideReview",
                "Record the held changes without sending events: no subscriber is informed. To "
                "reject the changes, correct the connected system instead: later polls then "
                "discard the changes.",
                columns=_HELD,
                body={"decision": "accept_silently"},
                ask="Record these changes without informing any subscriber?",
            ),
        },
        """\
coursewire reviews
coursewire reviews show int_... --preview 5
coursewire reviews publish int_...""",
    ),
    "replays": Resource(
        "Past events that are sent again.",
        "id which state since until queued delivered dead created_at error",
        {
            "list": Verb("listReplays"),
            "show": Verb("showReplay"),
            "create": Verb("replayEvents"),
            "cancel": Verb("cancelReplay", done="cancelled"),
        },
        """\
coursewire replays create sub_... --which dead
coursewire replays create sub_... --which missing --since 2026-11-23T06:00:00Z
coursewire replays show sub_... rpl_...""",
    ),
    "credentials": Resource(
        "Base URLs and API keys of the upstream.",
        "id name base_url created_at updated_at",
        {
            "list": Verb("listCredentials"),
            "show": Verb("showCredential"),
            "create": Verb("createCredential"),
            "edit": Verb("changeCredential"),
            "delete": Verb("deleteCredential", ask="Delete {0}?", done="deleted"),
        },
        """\
coursewire credentials edit cred_... --api-key @new-key.txt""",
    ),
    "api-key": Resource(
        "API keys of this service, and their rights.",
        "id name scope integration_ids labels created_at expires_at last_used_at",
        {
            "list": Verb("listAPIKeys"),
            "show": Verb("showAPIKey"),
            "create": Verb("createAPIKey", once="token"),
            "edit": Verb("changeAPIKey"),
            "rotate": Verb("rotateAPIKeyToken", once="token"),
            "revoke": Verb(
                "revokeAPIKey",
                ask="Revoke {0}? Its token stops working, and its subscriptions get no events.",
                done="revoked",
            ),
        },
        """\
coursewire api-key create --name 'Tenant 42' --scope subscriber --label tenant=42
coursewire api-key rotate key_... --get token""",
    ),
    "me": Resource(
        "The rights of the token in use.",
        "id name external_id state last_completed_at behind_seconds",
        {"show": Verb("showMe"), "integrations": Verb("listMyIntegrations")},
        """\
coursewire --token-file key.txt me integrations""",
    ),
    "audit": Resource(
        "Audit records of changes, newest first.",
        "at actor action object_id fields address request_id",
        {"list": Verb("listAuditEntries")},
    ),
    "history": Resource(
        "Recorded metrics, by minute or by hour.",
        "",
        {"show": Verb("showHistory", view="history")},
        """\
coursewire history --series attempts_total,deliveries_pending --resolution hour""",
    ),
}
