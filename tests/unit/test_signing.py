from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from service.domain.signing import decode_secret, encode_secret, sign

KEY, OLD_KEY = bytes(range(32)), bytes(range(32, 64))
BODY = '{"type":"course.updated","data":{"course_id":"名前 🎓"}}'.encode()
MESSAGE_ID = "evt_01m83sr733000726vafvwsrmbh"


def headers(*keys: bytes, body: bytes = BODY, timestamp: int | None = None) -> dict[str, str]:
    return sign(keys, MESSAGE_ID, int(time.time()) if timestamp is None else timestamp, body)


def test_the_official_library_accepts_what_is_signed():
    verified = Webhook(encode_secret(KEY)).verify(BODY, headers(KEY))

    assert verified["data"]["course_id"] == "名前 🎓"


def test_while_a_rotated_secret_overlaps_both_verify():
    signed = headers(KEY, OLD_KEY)

    for key in (KEY, OLD_KEY):
        Webhook(encode_secret(key)).verify(BODY, signed)


def test_the_newest_key_signs_first():
    both = headers(KEY, OLD_KEY, timestamp=1)["webhook-signature"].split(" ")

    assert both == [headers(key, timestamp=1)["webhook-signature"] for key in (KEY, OLD_KEY)]


@pytest.mark.parametrize("field", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_the_official_library_refuses_altered_headers(field):
    signed = headers(KEY)
    other = sign([OLD_KEY], "evt_other", int(time.time()) - 10, BODY)

    with pytest.raises(WebhookVerificationError):
        Webhook(encode_secret(KEY)).verify(BODY, signed | {field: other[field]})


def test_the_official_library_refuses_an_altered_body_and_a_foreign_key():
    with pytest.raises(WebhookVerificationError):
        Webhook(encode_secret(KEY)).verify(BODY + b" ", headers(KEY))
    with pytest.raises(WebhookVerificationError):
        Webhook(encode_secret(OLD_KEY)).verify(BODY, headers(KEY))


def test_an_old_attempt_is_refused_so_each_attempt_carries_its_own_time():
    with pytest.raises(WebhookVerificationError):
        Webhook(encode_secret(KEY)).verify(BODY, headers(KEY, timestamp=int(time.time()) - 600))


def test_headers_are_those_of_the_specification():
    """The vector published with the specification's reference libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

    assert sign(
        [decode_secret(secret)],
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330,
        b'{"test": 2432232314}',
    ) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


@pytest.mark.parametrize("length", [24, 32, 64])
def test_secrets_read_back(length):
    assert decode_secret(encode_secret(b"k" * length)) == b"k" * length


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ("", "starts with 'whsec_'"),
        (base64.b64encode(KEY).decode(), "starts with 'whsec_'"),
        ("WHSEC_" + base64.b64encode(KEY).decode(), "starts with 'whsec_'"),
        ("whsec_not base64 at all!", "standard base64"),
        ("whsec_" + base64.b64encode(KEY).decode().rstrip("="), "standard base64"),
        ("whsec_" + base64.urlsafe_b64encode(b"\xff" * 24).decode(), "standard base64"),
        ("whsec_äöü", "standard base64"),
        ("whsec_", "24 to 64 bytes, this one to 0"),
        (encode_secret(b"k" * 23), "24 to 64 bytes, this one to 23"),
        (encode_secret(b"k" * 65), "24 to 64 bytes, this one to 65"),
    ],
)
def test_an_unusable_secret_says_what_is_wrong_with_it(secret, problem):
    with pytest.raises(ValueError, match=problem) as raised:
        decode_secret(secret)

    assert len(secret) < 10 or secret not in str(raised.value)
