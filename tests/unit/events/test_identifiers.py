from __future__ import annotations

import pytest

from service.domain.events.identifiers import (
    ALPHABET,
    EVENT_PREFIX,
    SUFFIX_LENGTH,
    decode,
    encode,
    encode_random,
    event_id,
    event_position,
    position_ms,
)

SUFFIX = "26vafvwsrmbh"


@pytest.mark.parametrize(
    ("number", "length", "text"),
    [
        (0, 1, "0"),
        (0, 4, "0000"),
        (31, 1, "z"),
        (32, 2, "10"),
        # The time part of the example in the ULID specification, in lower case.
        (1_469_918_176_385, 10, "01aryz6s41"),
        (32**10 - 1, 10, "z" * 10),
    ],
)
def test_numbers_are_written_in_base_32(number, length, text):
    assert encode(number, length) == text
    assert decode(text) == number


def test_numbers_of_one_width_sort_as_their_texts_do():
    numbers = [0, 1, 31, 32, 1023, 1024, 1_795_424_001_123, 1_795_424_001_124, 32**10 - 1]
    texts = [encode(number, 10) for number in numbers]

    assert texts == sorted(texts)


@pytest.mark.parametrize("foreign", ["I", "u", "l", "o", "-", "é", " "])
def test_foreign_characters_are_refused(foreign):
    with pytest.raises(KeyError):
        decode("0" + foreign)


def test_the_alphabet_leaves_out_what_is_misread():
    assert len(set(ALPHABET)) == 32
    assert not set("ilou") & set(ALPHABET)


def test_random_characters_use_each_byte_once():
    assert encode_random(bytes([0, 31, 32, 255]), 4) == "0z0z"
    assert encode_random(bytes(range(20)), 12) == ALPHABET[:12]


@pytest.mark.parametrize(
    "position", ["0-0", "1795424001123-0", "1795424001123-7", f"{32**10 - 1}-{32**4 - 1}"]
)
def test_an_event_id_leads_to_its_position(position):
    identifier = event_id(position, SUFFIX)

    assert len(identifier) == len(EVENT_PREFIX) + 14 + SUFFIX_LENGTH
    assert event_position(identifier) == (position, SUFFIX)
    assert position_ms(position) == int(position.split("-")[0])


def test_event_ids_sort_by_their_position():
    positions = ["1795424001123-0", "1795424001123-1", "1795424001123-40", "1795424001124-0"]
    identifiers = [event_id(position, SUFFIX) for position in positions]

    assert identifiers == sorted(identifiers)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "evt_",
        "01m83sr733000726vafvwsrmbh",
        "evt_01m83sr733000726vafvwsrmb",
        "evt_01m83sr733000726vafvwsrmbhh",
        "evt_01M83SR733000726vafvwsrmbh",
        "evt_ü1m83sr733000726vafvwsrmbh",
        "sub_01m83sr733000726vafvwsrmbh",
        "evt_evt_m83sr733000726vafvwsrmb",
    ],
)
def test_what_is_no_event_id_leads_nowhere(text):
    assert event_position(text) is None
