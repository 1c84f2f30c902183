from __future__ import annotations

import pytest

from service.domain.courses import salvage
from service.domain.courses.salvage import items, member, members, text_of

DEEP = b"[" * 50_000 + b"]" * 50_000


@pytest.mark.parametrize(
    "broken",
    [
        b"NaN",
        b"-Infinity",
        b"undefined",
        b"1e",
        b'"a\tb"',
        b'"a\nb"',
        b'"\\x41"',
        b'"\\ud83d"',
        b'"\\u12"',
        b'"\xff\xfe"',
        b'"say ""hi"" to me"',
        b"'it'",
        b"{1: 2}",
        b"[1 2]",
        b"/* of no use */ 1",
        b'"],[" x ","',
        b"[1,,]",
        DEEP,
    ],
)
def test_what_is_broken_between_its_brackets_leaves_its_neighbours_whole(broken):
    text = b' [ {"id":"a"} , {"x":' + broken + b'},\n{"id":"c"}]\n'

    assert items(text) == [b'{"id":"a"}', b'{"x":' + broken + b"}", b'{"id":"c"}']


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b'"[]"',
        b"{}",
        b"[",
        b"[1",
        b"[1}",
        b"[1]]",
        b"[1] x",
        b"[1][2]",
        b'["a]',
        b'["a\\"]',
        b'[{"a":1]',
        b'[{"a":[1}]',
        b'["a" "b]',
    ],
)
def test_a_list_whose_brackets_or_quotes_do_not_match_has_no_items(text):
    assert items(text) is None


def test_an_item_that_is_missing_is_empty_and_a_comma_at_the_end_means_nothing():
    assert items(b"[]") == []
    assert items(b"[ \n]") == []
    assert items(b"[1,]") == [b"1"]
    assert items(b"[1, ,2]") == [b"1", b"", b"2"]
    assert items(b"[,1]") == [b"", b"1"]


@pytest.mark.parametrize(
    "text", [b'["a" "b"]', b"[{} {}]", b"[1 {}]", b'[{"id":"a"}, "x" 1]', b"[[] x, 1]"]
)
def test_an_item_that_is_more_than_one_value_may_hide_another(text):
    assert items(text) is None


def test_members_come_by_name_and_broken_values_stay_with_theirs():
    found = members(b'{"a" : NaN, "b":{"c":[1,2]}, "\\u0064":"\\x41" , "e":[1,,] ,}')

    assert found == {"a": b"NaN", "b": b'{"c":[1,2]}', "d": b'"\\x41"', "e": b"[1,,]"}
    assert members(b"{ }") == {}


@pytest.mark.parametrize(
    "text",
    [b"{7:8}", b'{"\\ud83d":9}', b'{"a"}', b'{"a":1,,"b":2}', b'{"a":{} {}}', b'{"a":"x" "y"}'],
)
def test_a_member_that_cannot_be_told_may_hide_another(text):
    assert members(text) is None


def test_one_member_is_found_whatever_is_beside_it():
    text = b'{7:8, "\\ud83d":9, {} "x", "id" : "a" ,"x":{"id":"b"} {},}'

    assert member(text, "id") == b'"a"'
    assert member(b'{"id":1,"id":2}', "id") is None
    assert member(b'{"x":1}', "id") is None
    assert member(b'{"id":1', "id") is None


def test_a_name_that_comes_twice_has_no_value():
    assert members(b'{"a":1,"b":2,"\\u0061":3}') == {"a": None, "b": b"2"}


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"a":1', b'{"a":"}', b'{"a":1}}', b'{"a":[}'])
def test_an_object_that_cannot_be_bounded_has_no_members(text):
    assert members(text) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b'"a"', "a"),
        (b'"\\u00e9"', "é"),
        (b'""', ""),
        (b'"\\ud83d"', None),
        (b'"\\x41"', None),
        (b'"\xff"', None),
        (b'"a" "b"', None),
        (b"7", None),
        (b"null", None),
        (b"", None),
        (None, None),
    ],
)
def test_only_a_sound_string_is_text(value, text):
    assert text_of(value) == text


def test_the_work_is_bounded(monkeypatch):
    monkeypatch.setattr(salvage, "MAX_BRACKETS", 10)
    assert items(b"[1,2,3]") == [b"1", b"2", b"3"]
    assert items(b"[" * 6 + b"]" * 6) is None
    assert items(b"[" + b"," * 20 + b"]") is None
    monkeypatch.setattr(salvage, "MAX_BYTES", 10)
    assert items(b"[12345678]") == [b"12345678"]
    assert items(b"[123456789]") is None


def test_strings_of_any_length_and_number_are_passed_quickly():
    """Nothing about them grows worse than their length."""
    long = b'"' + b'\\"x' * 1_000_000 + b'"'
    many = b"[" + b'"",' * 300_000 + b'""]'
    assert items(b"[" + long + b"," + many + b"]") == [long, many]
    assert items(b'["' + b"\\" * 999_999) is None
