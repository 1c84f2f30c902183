"""Wrong requests over all routes, each by a name. What stands in braces is made beforehand."""

from __future__ import annotations

from typing import Any, NamedTuple

LONG = "x" * 2_001
CURSOR = "MTc5NTQyNDAwMTEyMy0w"  # of the event log, which no other list takes


class Wrong(NamedTuple):
    """A request. `body` is sent as JSON unless it is bytes; `token` names whose it is."""

    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    token: str = "admin"


def _post(path: str, body: Any, **rest: Any) -> Wrong:
    return Wrong("POST", f"/v1{path}", body, **rest)


def _patch(path: str, body: Any, **rest: Any) -> Wrong:
    return Wrong("PATCH", f"/v1{path}", body, **rest)


def _get(path: str, **rest: Any) -> Wrong:
    return Wrong("GET", f"/v1{path}", **rest)


def _delete(path: str, **rest: Any) -> Wrong:
    return Wrong("DELETE", f"/v1{path}", **rest)


NOWHERE = {
    "credentials": "/credentials/cred_0",
    "integrations": "/integrations/int_0",
    "subscriptions": "/subscriptions/sub_0",
    "api-keys": "/api-keys/key_0",
}
OF_NOWHERE = {
    "check": _post("/integrations/int_0/check", None),
    "polls": _get("/integrations/int_0/polls"),
    "poll": _get("/integrations/{integration}/polls/poll_0"),
    "new poll": _post("/integrations/int_0/polls", {"kind": "full"}),
    "courses": _get("/integrations/int_0/courses"),
    "course": _get("/integrations/{integration}/courses/none"),
    "review": _get("/integrations/int_0/review"),
    "secret": _get("/subscriptions/sub_0/secret"),
    "rotation": _post("/subscriptions/sub_0/secret/rotate", None),
    "resume": _post("/subscriptions/sub_0/resume", None),
    "retry": _post("/subscriptions/sub_0/retry", None),
    "skip": _post("/subscriptions/sub_0/skip", None),
    "test": _post("/subscriptions/sub_0/test", None),
    "replays": _get("/subscriptions/sub_0/replays"),
    "replay": _get("/subscriptions/{subscription}/replays/rpl_0"),
    "cancel": _delete("/subscriptions/{subscription}/replays/rpl_0"),
    "deliveries": _get("/deliveries?subscription_id=sub_0"),
    "event": _get("/events/evt_0"),
    "redelivery": _post("/events/evt_0/redeliver", {"subscription_id": "{subscription}"}),
    "token": _post("/api-keys/key_0/token/rotate", None),
    "path": _get("/nothing/of/this"),
}
TYPES = {
    "credential": {"name": 1, "base_url": ["x"], "api_key": {"a": 1}},
    "integration": {
        "name": True,
        "upstream_id": 7,
        "credential_id": [],
        "external_id": 1,
        "labels": [],
        "delta_interval_seconds": "60",
        "full_interval_seconds": 1.5,
        "baseline": 0,
        "ignore_paths": "provider",
        "track_remote_data": "no",
        "guards": 3,
        "paused": None,
    },
    "subscription": {
        "url": None,
        "description": 5,
        "from": 5,
        "event_types": "course.created",
        "integration_ids": {},
        "labels": "a=b",
        "changed": [1, "provider", None],
        "payload": [],
        "format": {},
        "headers": ["a"],
        "client_certificate": "pem",
        "signature": 1,
        "secret": 1,
        "max_concurrency": "8",
        "rate_per_second": True,
        "timeout_seconds": "15",
        "retry_schedule_seconds": [5, "300", None, 1.5],
        "paused": 1,
    },
    "api key": {
        "name": None,
        "scope": 1,
        "integration_ids": "int_0",
        "labels": 4,
        "expires_at": 1_800_000_000,
    },
    "replay": {"which": None, "since": 1, "until": True, "event_types": {}},
}
BOUNDS = {
    "credential": {"name": "x" * 201, "base_url": "https://a/" + LONG, "api_key": "k" * 501},
    "integration": {
        "name": "x" * 201,
        "upstream_id": "x" * 201,
        "credential_id": "cred_",
        "external_id": "",
        "labels": {"x" * 65: "a", "": "b", "c": "x" * 257, "d": "e\u0000"},
        "delta_interval_seconds": 0,
        "full_interval_seconds": 13 * 86_400 + 1,
        "baseline": "silence",
        "ignore_paths": ["provider", "provider", "nothing"],
        "guards": {
            "deleted_count": -1,
            "deleted_share": 1.5,
            "deleted_share_max": -0.5,
            "changed_count": 0,
            "changed_share": 2,
        },
    },
    "subscription": {
        "url": "https://example.com/" + LONG,
        "description": "x" * 1_001,
        "from": "yesterday",
        "event_types": [],
        "integration_ids": ["int_0", "sub_0", "int_0", ""],
        "labels": {f"n{number}": "v" for number in range(51)},
        "changed": ["revisions.titel", "whatever"],
        "payload": "ful",
        "format": "xml",
        "headers": {"host": "a", "bad name": "b", "x-a": "", "x-b": "c\u0007", "X-A": "d"},
        "client_certificate": {"certificate": "none", "private_key": "none", "chain": "x"},
        "signature": "hmac512",
        "secret": "whsec_x",
        "max_concurrency": 101,
        "rate_per_second": 0,
        "timeout_seconds": 61,
        "retry_schedule_seconds": [1] * 21,
        "paused": True,
    },
    "api key": {
        "name": " ",
        "scope": "admins",
        "integration_ids": [],
        "labels": {"a": ""},
        "expires_at": "2020-01-01T00:00:00Z",
    },
    "replay": {
        "which": "missed",
        "since": "2026-13-01T00:00:00Z",
        "until": "2026-1-1",
        "event_types": ["course.create", "course.created", "course.created"],
    },
}
PATHS = {
    "credential": "/credentials",
    "integration": "/integrations",
    "subscription": "/subscriptions",
    "api key": "/api-keys",
    "replay": "/subscriptions/{subscription}/replays",
}
ONE = {
    "credential": "/credentials/{credential}",
    "integration": "/integrations/{integration}",
    "subscription": "/subscriptions/{subscription}",
    "api key": "/api-keys/{key}",
}
REQUIRED_ALONE = {name: _post(path, {}) for name, path in PATHS.items()}
UNKNOWN = {"colour": 1, "nam": "x", "urll": "x", "x" * 150: 1, "wich": "all", "labls": {}}
READ_ONLY = {"id": "x", "created_at": "x", "updated_at": "x", "state": "x", "token": "x"}
FIXED = {
    "integration": {"base_url": "https://a.example/v1", "api_key": "k", "name": ""},
    "subscription": {"from": "now", "signature": "hmac", "secret": "x", "paused": "no"},
    "api key": {"scope": "read", "name": ""},
}

BODIES: dict[str, Wrong] = {
    **{f"empty {name}": wrong for name, wrong in REQUIRED_ALONE.items()},
    **{f"types of {name}": _post(PATHS[name], body) for name, body in TYPES.items()},
    **{f"bounds of {name}": _post(PATHS[name], body) for name, body in BOUNDS.items()},
    **{f"types of a changed {name}": _patch(ONE[name], TYPES[name]) for name in ONE},
    **{f"bounds of a changed {name}": _patch(ONE[name], BOUNDS[name]) for name in ONE},
    **{f"unknown in {name}": _post(path, UNKNOWN) for name, path in PATHS.items()},
    **{f"unknown in a changed {name}": _patch(path, UNKNOWN) for name, path in ONE.items()},
    **{f"read-only in {name}": _post(PATHS[name], READ_ONLY) for name in ONE},
    **{f"read-only in a changed {name}": _patch(ONE[name], READ_ONLY) for name in ONE},
    **{f"fixed in a changed {name}": _patch(ONE[name], body) for name, body in FIXED.items()},
    "many unknown": _post("/subscriptions", {f"field {number}": 1 for number in range(200)}),
    "guards that are not known": _patch(
        ONE["integration"], {"guards": {"colour": 1, "deleted_shares": 0.5, "changed_share": "x"}}
    ),
    "blank texts": _post("/credentials", {"name": "\t", "base_url": "", "api_key": "'' "}),
    "control characters": _post(
        "/credentials",
        {"name": "a\nb", "base_url": "https://a.example/\u0001", "api_key": "a\u00e4b"},
    ),
    "a base URL with a query": _post(
        "/credentials", {"name": "a", "base_url": "https://a.example/v1?x=1", "api_key": "k"}
    ),
    "a base URL in clear": _post(
        "/credentials", {"name": "a", "base_url": "http://a.example/v1", "api_key": "k"}
    ),
    "a base URL of a private network": _patch(
        ONE["credential"], {"base_url": "https://10.0.0.1/v1", "colour": 1}
    ),
    "a base URL without a host": _patch(ONE["credential"], {"base_url": "ftp://a.example"}),
    "a credential twice over": _post(
        "/integrations",
        {
            "name": "a",
            "upstream_id": "b",
            "credential_id": "{credential}",
            "base_url": "https://a.example/v1",
            "api_key": "k",
        },
    ),
    "no credential": _post("/integrations", {"name": "a", "upstream_id": "b"}),
    "half a credential": _post(
        "/integrations", {"name": "a", "upstream_id": "b", "base_url": "https://a.example/v1"}
    ),
    "the other half": _post("/integrations", {"name": "a", "upstream_id": "b", "api_key": "k"}),
    "an unknown credential": _post(
        "/integrations", {"upstream_id": "a b", "credential_id": "cred_0", "paused": 3}
    ),
    "an unknown credential for a change": _patch(
        ONE["integration"], {"credential_id": "cred_0", "paused": 3}
    ),
    "an integration that exists": _post(
        "/integrations", {"name": "b", "upstream_id": "up", "credential_id": "{credential}"}
    ),
    "values to try": _post("/integrations/check", {"base_url": "https://10.0.0.1/v1", "nam": 1}),
    "nothing to try": _post("/integrations/check", {}),
    "a kind of poll": _post("/integrations/{integration}/polls", {"kind": "ful", "type": "full"}),
    "a poll with read-only fields": _post("/integrations/{integration}/polls", {"id": "x"}),
    "a subscription of the unknown": _post(
        "/subscriptions",
        {
            "url": "https://10.0.0.1/hook",
            "integration_ids": ["{integration}", "int_0"],
            "retry_schedule_seconds": [86_400] * 20,
            "from": "2126-01-01T00:00:00Z",
            "max_concurrency": 0,
        },
    ),
    "a subscriber's subscription": _post(
        "/subscriptions",
        {
            "url": "https://example.com/hook",
            "event_types": ["integration.error", "course.created"],
            "integration_ids": ["{integration}"],
        },
        token="subscriber",
    ),
    "a secret for another signature": _post(
        "/subscriptions",
        {
            "url": "https://example.com/hook",
            "signature": "ed25519",
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        },
    ),
    "secrets": _post("/subscriptions", {"url": "https://example.com/ a", "secret": "whsk_AAAA"}),
    "headers without values": _patch(
        ONE["subscription"], {"headers": {"authorization": None, "x": 1, "y": "a" * 2_001}}
    ),
    "many headers": _patch(
        ONE["subscription"], {"headers": {f"x-{number}": "v" for number in range(21)}}
    ),
    "half a certificate": _patch(
        ONE["subscription"], {"client_certificate": {"certificate": None}}
    ),
    "a rotation": _post(
        "/subscriptions/{subscription}/secret/rotate",
        {"overlap_seconds": -1, "secret": 1, "signature": "rsa", "from": "now"},
    ),
    "a rotation to another signature": _post(
        "/subscriptions/{subscription}/secret/rotate",
        {"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "signature": "ed25519"},
    ),
    "retrying": _post("/subscriptions/{subscription}/retry", {"event_id": "sub_0", "all": True}),
    "retrying what is not pending": _post(
        "/subscriptions/{subscription}/retry", {"event_id": "evt_0"}
    ),
    "skipping": _post("/subscriptions/{subscription}/skip", {"until": "now", "since": None}),
    "a replay of the future": _post(
        PATHS["replay"], {"which": "all", "since": "2126-01-01T00:00:00Z", "colour": 1}
    ),
    "a replay that ends before it begins": _post(
        PATHS["replay"],
        {"which": "all", "since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"},
    ),
    "a backfill of the past": _post(
        PATHS["replay"],
        {
            "which": "backfill",
            "since": "2026-01-02T00:00:00Z",
            "until": "2026-01-01T00:00:00Z",
            "event_types": ["course.deleted"],
        },
    ),
    "a redelivery": _post("/events/evt_0/redeliver", {"subscription_id": "x", "event_id": "evt_0"}),
    "a redelivery to nobody": _post("/events/evt_0/redeliver", {}),
    "a decision": _post(
        "/integrations/{integration}/review", {"decision": "publsh", "reason": "x"}
    ),
    "no decision": _post("/integrations/{integration}/review", {}),
    "a decision on nothing in particular": _post(
        "/integrations/{integration}/review", {"decision": "publish"}
    ),
    "a decision on something else": _post(
        "/integrations/{integration}/review", {"decision": "publish"}, headers={"if-match": '"x"'}
    ),
    "a preview of too much": _get("/integrations/{integration}/review?preview=21"),
    "a preview for a reader": Wrong(
        "GET", "/v1/integrations/{integration}/review?preview=1", token="reader"
    ),
    "a long overlap": _post("/api-keys/{key}/token/rotate", {"overlap_seconds": 604_801, "x": 1}),
    "an owner that is none": _patch(ONE["subscription"], {"owner": "{reader}"}),
    "a pause": _post("/pause", {"what": "pollin", "why": "x"}),
    "a resumption": _post("/resume", {"what": 1}),
    "a key for nothing": _post("/api-keys", {"name": "k", "scope": "subscriber"}),
    "a key for too much": _post(
        "/api-keys",
        {"name": "k", "scope": "read", "labels": {"a": "b"}, "integration_ids": ["int_0"]},
    ),
    "a key left with nothing": _patch(ONE["api key"], {"labels": None}),
    "a key of the past": _patch(
        ONE["api key"], {"expires_at": "2020-01-01T00:00:00Z", "integration_ids": ["int_0"]}
    ),
    "a key that is not a subscriber's": _patch(
        "/api-keys/{reader}", {"labels": {"a": "b"}, "integration_ids": ["{integration}"]}
    ),
}
QUERIES: dict[str, Wrong] = {
    **{
        f"a query of {path}": _get(f"{path}?limit=0&limit=2&after=!&colour=1&labl=a%3Db")
        for path in (
            "/credentials",
            "/integrations",
            "/subscriptions",
            "/api-keys",
            "/audit",
            "/events",
            "/events/stream",
            "/subscriptions/{subscription}/replays",
            "/integrations/{integration}/courses",
            "/integrations/{integration}/review",
            "/deliveries",
        )
    },
    **{
        f"a limit of {limit!r}": _get(f"/credentials?limit={limit}")
        for limit in ("0", "501", "many", "1.5", "", "true")
    },
    **{
        f"another list's cursor for {path}": _get(f"{path}?after={CURSOR}")
        for path in ("/credentials", "/subscriptions", "/integrations/{integration}/courses")
    },
    "states": _get("/integrations?state=activ,paused,&name=%20&label=region&label=%3Deu"),
    "states of subscriptions": _get("/subscriptions?state=error&name=&name=a"),
    "many labels": _get("/subscriptions?" + "&".join(["label=a%3Db"] * 51)),
    "an event query": _get(
        "/events?type=course.create,x&integration_id=sub_0&course_id=&payload=all&order=up"
        "&wait=61&after=evt_0"
    ),
    "waiting backwards": _get("/events?order=desc&wait=5&limit=many"),
    "an event's payload": _get("/events/evt_0?payload=fat&after=x"),
    "a stream's filters": _get("/events/stream?type=all&payload=&after=earliest&wait=1"),
    "a stream's last event": _get("/events/stream", headers={"last-event-id": "none"}),
    "deliveries until before": _get(
        "/deliveries?since=2026-11-23T00:00:00Z&until=2026-11-22T00:00:00Z"
    ),
    "deliveries in no state": _get("/deliveries?subscription_id=int_0&event_id=x&state=gone"),
    "two course ids": _get("/integrations/{integration}/courses?course_id=a&course_id=b"),
    "metrics in detail": Wrong("GET", "/metrics?detail=everything&more=1"),
}
JSON = {"content-type": "application/json"}
FORMS: dict[str, Wrong] = {
    **{
        f"{name} to {path}": _post(path, body, headers=headers)
        for path in ("/credentials", "/pause", "/integrations/{integration}/polls")
        for name, body, headers in (
            ("no JSON", b"{name: 1}", JSON),
            ("a list", b"[]", JSON),
            ("text", b'"a"', JSON),
            ("another type", b"a=b", {"content-type": "application/x-www-form-urlencoded"}),
            ("no type", b"{}", {"content-type": ""}),
            ("another charset", b"{}", {"content-type": "application/json; charset=latin-1"}),
            ("a coding", b"{}", {**JSON, "content-encoding": "gzip"}),
            ("no UTF-8", b'{"what": "\xff"}', JSON),
        )
    },
    "no body to create of": _post("/credentials", b"", headers=JSON),
    "no body to change by": _patch(ONE["credential"], b"", headers=JSON),
    "deep JSON": _post("/credentials", b"[" * 100_000, headers=JSON),
    "a body that is too large": _post("/credentials", b" " * 1_048_577, headers=JSON),
    "a URL that is too long": _get("/credentials?after=" + "a" * 9_000),
    "large headers": _get("/credentials", headers={"x-large": "a" * 17_000}),
    "an idempotency key": _post("/pause", {}, headers={"idempotency-key": "a b"}),
    **{
        f"{name} that has changed": Wrong(method, f"/v1{path}", body, {"if-match": '"0"'})
        for name, path in ONE.items()
        if name != "api key"
        for method, body in (("PATCH", {"paused": False} if name != "credential" else {}),)
    },
    **{
        f"deletion of a {name} that has changed": _delete(path, headers={"if-match": '"0"'})
        for name, path in ONE.items()
        if name != "api key"
    },
    "deletion of a credential in use": _delete(ONE["credential"]),
}
METHODS: dict[str, Wrong] = {
    f"{method} {path}": Wrong(method, path, {} if method != "DELETE" else None)
    for method, path in (
        ("PUT", "/v1/credentials"),
        ("PATCH", "/v1/subscriptions"),
        ("DELETE", "/v1/events"),
        ("POST", "/v1/status"),
        ("PUT", "/v1/integrations/{integration}"),
        ("DELETE", "/v1/integrations/{integration}/review"),
        ("POST", "/healthz"),
        ("PATCH", "/v1/integrations/{integration}/polls"),
    )
}
ACCESS: dict[str, Wrong] = {
    **{
        f"{token} and {method} {path}": Wrong(method, path, token=token)
        for token in ("nobody", "stranger", "subscriber", "reader", "metrics")
        for method, path in (
            ("GET", "/v1/audit"),
            ("POST", "/v1/pause"),
            ("GET", "/v1/subscriptions/{subscription}/secret"),
            ("POST", "/v1/subscriptions"),
            ("DELETE", "/v1/credentials/{credential}"),
            ("POST", "/v1/integrations/{integration}/review"),
            ("POST", "/v1/api-keys"),
        )
    },
    **{
        f"subscriber and another's: {method} {path}": Wrong(method, path, token="subscriber")
        for method, path in (
            ("GET", "/v1/subscriptions/{subscription}"),
            ("DELETE", "/v1/subscriptions/{subscription}"),
            ("GET", "/v1/subscriptions/{subscription}/replays"),
            ("GET", "/v1/deliveries?subscription_id={subscription}"),
            ("POST", "/v1/subscriptions/{subscription}/retry"),
        )
    },
    "subscriber and metrics": Wrong("GET", "/metrics", token="subscriber"),
    "nobody and metrics": Wrong("GET", "/metrics", token="nobody"),
}
REQUESTS: dict[str, Wrong] = {
    **{f"nowhere: {name}": _get(path) for name, path in NOWHERE.items()},
    **{f"nowhere: change of {name}": _patch(path, {}) for name, path in NOWHERE.items()},
    **{f"nowhere: deletion of {name}": _delete(path) for name, path in NOWHERE.items()},
    **{f"nowhere: {name}": wrong for name, wrong in OF_NOWHERE.items()},
    **BODIES,
    **QUERIES,
    **FORMS,
    **METHODS,
    **ACCESS,
}
