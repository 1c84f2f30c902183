from __future__ import annotations

import pytest

from service.domain.courses.deletion_mark import Deletion, deletion, judging_time, read_date

NOW = 1_795_424_001_123  # 2026-11-23T08:53:21.123Z
HOUR = 3_600_000
MORNING = 1_795_161_600_000  # 2026-11-20T08:00:00Z


@pytest.mark.parametrize(
    ("value", "at_ms"),
    [
        ("2026-11-20T08:00:00Z", MORNING),
        ("2026-11-20T08:00:00.000Z", MORNING),
        ("2026-11-20t08:00:00z", MORNING),
        ("2026-11-20T08:00:00.1234567Z", MORNING + 123),
        ("2026-11-20T08:00:00,5Z", MORNING + 500),
        ("2026-11-20T13:30:00+05:30", MORNING),
        ("2026-11-20T13:30:00+0530", MORNING),
        ("2026-11-20T00:00:00-08", MORNING),
        ("2026-11-20 08:00:00", MORNING),
        ("2026-11-20 08:00:00 UTC", MORNING),
        ("2026-11-20 08:00:00 +00:00", MORNING),
        ("2026-11-20T08:00", MORNING),
        ("2026-11-20T08:00Z", MORNING),
        ("2026-11-20", MORNING - 8 * HOUR),
        (" 2026-11-20T08:00:00Z\n", MORNING),
        ("2026-11-20T07:59:60Z", MORNING - 1000),
    ],
)
def test_a_date_is_read_as_systems_write_it(value, at_ms):
    assert read_date(value) == at_ms
    assert deletion(value, NOW) is Deletion.DONE


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "0",
        "1",
        "false",
        "true",
        "null",
        "None",
        "N/A",
        "undefined",
        "[object Object]",
        "0000-00-00",
        "0000-00-00 00:00:00",
        "0000-00-00T00:00:00.000Z",
        "0001-01-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "1753-01-01",
        "1899-12-30",
        "1900-01-01",
        "1970-01-01T00:00:00Z",
        "1970-01-01T01:00:00+01:00",
        "1989-12-31T23:59:59Z",
        "2026-13-01",
        "2026-02-30",
        "2026-11-20T25:00:00Z",
        "2026-11-20T08:61:00Z",
        "2026-11-20T08:00:00+99:99",
        "2026-11-20T08:00:00 CET",
        "20.11.2026",
        "11/20/2026 08:00",
        "20261120",
        "Fri, 20 Nov 2026 08:00:00 GMT",
        "1795161600",
        "1795161600000",
        "\uff12\uff10\uff12\uff16-11-20",
        "2026-11-20T08:00:00Z; DROP",
        "2026-11-20\x00",
        "x" * 100_000,
    ],
)
def test_what_is_no_plausible_date_says_nothing_clear(value):
    assert deletion(value, NOW) is Deletion.UNCLEAR


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, Deletion.NONE),
        ("2026-11-23T08:53:21Z", Deletion.DONE),
        ("2026-11-23T08:58:21Z", Deletion.DONE),  # clocks differ by some minutes
        ("2026-11-23T08:58:22Z", Deletion.DUE),
        ("2026-11-24", Deletion.DUE),
        ("2038-01-19T03:14:07Z", Deletion.DUE),
        ("2099-12-31", Deletion.DUE),
        ("2200-01-01", Deletion.NONE),
        ("9999-12-31T23:59:59.999Z", Deletion.NONE),
        ("9999-12-31T23:59:59-12:00", Deletion.NONE),
        ("1990-01-01T00:00:00Z", Deletion.DONE),
    ],
)
def test_a_date_to_come_deletes_nothing_yet(value, found):
    assert deletion(value, NOW) is found


def test_the_time_is_ours_or_the_upstreams_where_that_leads_within_reason():
    assert judging_time(NOW, None) == NOW
    assert judging_time(NOW, NOW - 90 * HOUR) == NOW
    assert judging_time(NOW, NOW + 1000) == NOW + 1000
    assert judging_time(NOW, NOW + 90 * HOUR) == NOW + HOUR
