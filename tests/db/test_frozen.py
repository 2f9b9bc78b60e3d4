"""A daemon that is frozen in a transaction: the server ends it, unless it sends something now and then."""

import pytest

from db.connection import Database
from db.sink import AT_HAND, HASTY, PostgresSink
from processing.errors import DatabaseUnavailable
from tests.db.loading import count, delivery, write_rows
from tests.support import query, report, statuses, until

CONTENT = statuses(*(report(n) for n in range(3)))
SESSIONS = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'"
)


@pytest.mark.parametrize("is_hasty", [True, False])
def test_its_transaction_is_ended_and_can_be_repeated(database: Database, is_hasty: bool) -> None:
    hasty, patient = HASTY.replace("30s", "1s"), AT_HAND.replace("30s", "1s")
    sink = PostgresSink(database, idle_seconds=60, hasty=hasty, patient=patient)
    with pytest.raises(DatabaseUnavailable), sink.transaction(is_hasty=is_hasty) as transaction:
        assert not transaction.loaded([delivery(CONTENT).sha256 or b""])
        write_rows(transaction, CONTENT)
        until(lambda: not query(database.url, SESSIONS))
        transaction.commit()
    with sink.transaction(is_hasty=is_hasty) as transaction:
        write_rows(transaction, CONTENT)
        transaction.commit()
    assert count(database, "vehicle_status_history") == 3
    sink.close()


def test_one_that_reads_for_long_is_kept(database: Database) -> None:
    sink = PostgresSink(database, idle_seconds=0.1, patient=AT_HAND.replace("30s", "1s"))
    with sink.transaction() as transaction:
        assert not transaction.loaded([delivery(CONTENT).sha256 or b""])
        since = (
            "SELECT clock_timestamp() - xact_start > '2s' FROM pg_stat_activity WHERE application_name = %s"
        )

        def is_old() -> bool:
            sink.keep_alive()
            return (True,) in query(
                database.url, since + " AND datname = current_database()", ["mobileye-data"]
            )

        until(is_old)
        write_rows(transaction, CONTENT)
        transaction.commit()
    assert count(database, "vehicle_status_history") == 3
    sink.close()
