"""What a receiver says back of the secrets that it was sent."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.access.redaction import MARK, Redactor

SECRET = 'Bearer s3cr/t+käse "x"&=end'
WRITTEN = {
    "plain": lambda text: text,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON of PHP": lambda text: json.dumps(text)[1:-1].replace("/", "\\/"),
    "URL": lambda text: quote(text, safe=""),
    "path": quote,
    "form": quote_plus,
    "HTML": html.escape,
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
    "base64 of URLs": lambda text: base64.urlsafe_b64encode(text.encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "HEX": lambda text: text.encode().hex().upper(),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
def test_a_secret_is_found_however_it_is_written(write):
    written = write(SECRET)
    shown = Redactor([SECRET]).excerpt(f"you sent {written}, thank you".encode(), 1024).decode()
    assert shown.startswith(f"you sent {MARK}")
    assert written.rstrip("=") not in shown
    assert shown.endswith(", thank you")


def test_the_last_word_and_the_key_of_a_signing_secret_are_secrets_too():
    key = base64.b64encode(bytes(range(32))).decode()
    redactor = Redactor(["Basic dXNlcjpwYXNz", f"whsec_{key}"])
    said = f"dXNlcjpwYXNz {key} {bytes(range(32)).hex()} Basic".encode()
    assert redactor.excerpt(said, 1024).decode() == f"{MARK} {MARK} {MARK} Basic"


@given(
    secret=st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=40),
    before=st.binary(max_size=80),
    length=st.integers(1, 60),
)
def test_no_part_of_a_secret_is_left_where_the_excerpt_ends(secret, before, length):
    """As much is read as `reach` says, and the secret begins somewhere within what is kept."""
    redactor = Redactor([secret])
    content = (before + secret.encode())[: length + redactor.reach]
    shown = redactor.excerpt(content, length)
    assert len(shown) <= length
    assert secret.encode() not in shown
    if len(before) < length and redactor.excerpt(before, 1000) == before:
        assert MARK.encode().startswith(shown[len(before) :][:3])


def test_words_that_were_cut_off_within_a_secret_do_not_end_with_its_beginning():
    redactor = Redactor(["topsecretvalue"])
    assert redactor.text("invalid header: topsecr") == f"invalid header: {MARK}"
    assert redactor.text("invalid header: topsecretvalue!") == f"invalid header: {MARK}!"
    assert redactor.text("nothing of it") == "nothing of it"


def test_what_is_too_short_to_be_a_secret_stays():
    assert Redactor(["on", ""]).excerpt(b"come on", 1024) == b"come on"
    assert Redactor().excerpt(b"x" * 2000, 1024) == b"x" * 1024
