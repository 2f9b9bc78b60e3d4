"""Daemons divide a bucket: each slot has one daemon, all have some, and none is lost with its daemon."""

from collections.abc import Callable, Iterator

import pytest

import db.claims
from db.claims import SLOTS, Claims
from db.connection import Database
from processing.errors import DatabaseUnavailable
from tests.support import query, until

NAMES = [f"vehicles_status_{n}.json" for n in range(500)]


@pytest.fixture
def made(empty_database: Database) -> Iterator[Callable[[], Claims]]:
    """Makes the claims of one more daemon."""
    all_: list[Claims] = []

    def make() -> Claims:
        all_.append(Claims(lambda: empty_database, "s3://bucket/in/"))
        return all_[-1]

    yield make
    for claims in all_:
        claims.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db.claims, "_LEAVE_SECONDS", 0.0)


def settled(*daemons: Claims) -> list[list[str]]:
    """The names of each daemon, after some renewals by turns."""
    for _ in range(4):
        for claims in daemons:
            claims.renew()
    return [[name for name in NAMES if claims.is_ours(name)] for claims in daemons]


def has_all(claims: Claims) -> bool:
    claims.renew()
    return all(claims.is_ours(name) for name in NAMES)


def test_one_daemon_has_all(made: Callable[[], Claims]) -> None:
    claims = made()
    assert not claims.is_ours(NAMES[0])
    assert settled(claims) == [NAMES]


@pytest.mark.parametrize("count", [2, 3, 4])
def test_each_name_has_one_daemon_and_each_daemon_its_share(made: Callable[[], Claims], count: int) -> None:
    shares = settled(*(made() for _ in range(count)))
    assert sorted(name for share in shares for name in share) == sorted(NAMES)
    assert all(len(share) > len(NAMES) / count / 2 for share in shares)


def test_at_no_time_do_two_daemons_have_a_name(made: Callable[[], Claims]) -> None:
    daemons: list[Claims] = []
    for _ in range(4):
        daemons.append(made())
        for claims in daemons * 2:
            claims.renew()
            assert all(sum(other.is_ours(name) for other in daemons) <= 1 for name in NAMES)


def test_a_slot_that_is_given_up_is_kept_until_its_batches_have_ended(
    made: Callable[[], Claims], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.claims, "_LEAVE_SECONDS", 3600.0)
    first, second = made(), made()
    first.renew()
    second.renew()
    first.renew()
    assert 0 < sum(first.is_ours(name) for name in NAMES) < len(NAMES)
    second.renew()
    assert not any(second.is_ours(name) for name in NAMES)
    second.close()
    until(lambda: has_all(first))


def test_what_a_lost_daemon_had_is_free_and_it_notices(
    made: Callable[[], Claims], empty_database: Database
) -> None:
    first, second = made(), made()
    settled(first, second)
    query(
        empty_database.url,
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s"
        " AND pid = (SELECT min(pid) FROM pg_locks WHERE locktype = 'advisory')",
        [SLOTS],
    )
    lost = []
    for claims in (first, second):
        try:
            claims.renew()
        except DatabaseUnavailable:
            lost.append(claims)
    (one,) = lost
    assert not any(one.is_ours(name) for name in NAMES)
    (other,) = {first, second} - {one}
    until(lambda: has_all(other))
    shares = settled(first, second)
    assert sorted(name for share in shares for name in share) == sorted(NAMES)


def test_the_server_ends_the_claims_of_a_daemon_that_is_silent(
    made: Callable[[], Claims], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.claims, "_SILENCE", "1s")
    frozen = made()
    frozen.renew()
    monkeypatch.setattr(db.claims, "_SILENCE", "30s")
    other = made()
    other.renew()
    until(lambda: has_all(other))
    with pytest.raises(DatabaseUnavailable):
        frozen.renew()
    assert not frozen.is_ours(NAMES[0])
