"""A view is read from the address, and stands in it again as it was."""

from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest

from monitor.dashboard.view import View, read_view
from processing.errors import Misconfigured

NOW = datetime(2026, 11, 28, 16, 30, 59, tzinfo=UTC)


def test_without_an_address_a_view_is_of_the_last_day_of_the_fleet() -> None:
    until = datetime(2026, 11, 28, 16, 31, tzinfo=UTC)
    assert read_view({}, NOW) == View(until - timedelta(hours=24), until, None)
    assert read_view({"since": " ", "until": "", "vehicle": " "}, NOW) == read_view({}, NOW)


@pytest.mark.parametrize("vehicle", [None, "v1", 'a "&?=#<b>\N{EN DASH} %2F'])
@pytest.mark.parametrize("until", [NOW.replace(second=0), NOW, NOW.replace(microsecond=5)])
def test_an_address_brings_the_same_view_again(vehicle: str | None, until: datetime) -> None:
    view = View(until - timedelta(days=3), until, vehicle)
    given = dict(parse_qsl(urlsplit(view.address("/fleet")).query))
    assert read_view(given, NOW) == view


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"since": "yesterday"}, "since is 'yesterday': it should be a day or a time"),
        ({"until": "0001-01-01"}, "until is too early"),
        ({"since": "0001-01-01T00:00+14:00"}, "since is '0001-01-01T00:00"),
        ({"since": "2026-11-29"}, "since lies ahead of now"),
        ({"since": "2026-11-28", "until": "2026-11-28"}, "until has to be later than since"),
        ({"vehicle": "a\0b"}, "vehicle is no text that the database can hold"),
        ({"vehicle": "a\udc80b"}, "vehicle is no text that the database can hold"),
    ],
)
def test_what_is_no_view_is_refused_with_a_sentence(given: dict[str, str], message: str) -> None:
    with pytest.raises(Misconfigured) as refusal:
        read_view(given, NOW)
    assert str(refusal.value).startswith(message)


@pytest.mark.parametrize(
    ("duration", "spelled"),
    [
        (timedelta(minutes=30), "30 minutes"),
        (timedelta(hours=1), "1 hour"),
        (timedelta(minutes=90), "90 minutes"),
        (timedelta(hours=24), "1 day"),
        (timedelta(hours=36), "36 hours"),
        (timedelta(days=30), "30 days"),
    ],
)
def test_a_view_says_how_long_it_is(duration: timedelta, spelled: str) -> None:
    assert str(View(NOW - duration, NOW)).endswith(f" to 2026-11-28 16:30 UTC ({spelled})")
