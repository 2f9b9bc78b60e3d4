"""What the tests of db share: documents written through a sink, without a folder."""

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

from msgspec import json
from psycopg2.extensions import cursor as Cursor

from commands.verify import flaws_of_tables
from db.connection import Database
from db.row_audit import Scope, no_progress
from db.sink import PostgresSink, PostgresTransaction
from db.tables import Table
from processing.file_types import KINDS, kind_of_key
from processing.records import Kind, Record
from processing.sink import Counts, Delivery
from service.file_kinds import FILE_KINDS
from tests.support import query


def delivery(content: bytes, name: str = "x.json") -> Delivery:
    return Delivery(hashlib.sha256(content).digest(), name, len(content), datetime.now(UTC))


def kind_of(record: Record) -> Kind:
    """The kind whose files hold such records."""
    (kind,) = (kind for kind in KINDS.values() if kind.record is type(record))
    return kind


def parsed_document(content: bytes) -> tuple[Kind, list[Any]]:
    ((key, elements),) = json.decode(content).items()
    kind = kind_of_key(key)
    assert kind is not None
    return kind, list(kind.parse(elements))


def write(transaction: PostgresTransaction, *contents: bytes) -> None:
    """All but the COMMIT."""
    transaction.loaded([delivery(content).sha256 or b"" for content in contents])
    write_rows(transaction, *contents)


def write_rows(transaction: PostgresTransaction, *contents: bytes) -> None:
    """The rows of files that are not loaded."""
    for content in contents:
        kind, elements = parsed_document(content)
        transaction.begin_file(delivery(content), kind)
        for parsed in elements:
            transaction.write(parsed)


def load(sink: PostgresSink, *contents: bytes) -> list[Counts]:
    with sink.transaction() as transaction:
        write(transaction, *contents)
        return transaction.commit()


@contextmanager
def sink_to(database: Database) -> Iterator[PostgresSink]:
    sink = PostgresSink(database)
    try:
        yield sink
    finally:
        sink.close()


def count(database: Database, table: str) -> int:
    return int(query(database.url, f"SELECT count(*) FROM mobileye_data.{table}")[0][0])


def counts(database: Database) -> dict[str, int]:
    """The rows of each table."""
    tables = ("objects_detection_events", "vehicle_status_history", "vehicle_status", "ingested_files")
    return {table: count(database, table) for table in (*tables, "rejected_records")}


def locked(cursor: Cursor, table: Table) -> list[str]:
    """The partitions on which this transaction has a lock, without the name of their table."""
    cursor.execute(
        """
        SELECT DISTINCT relname::text FROM pg_locks JOIN pg_class ON relation = pg_class.oid
        WHERE pid = pg_backend_pid() AND relispartition AND relkind = 'r' AND relname LIKE %s ORDER BY 1
        """,
        (f"{table.name}%",),
    )
    return [name.removeprefix(f"{table.name}_") for (name,) in cursor.fetchall()]


def flaws(database: Database) -> list[str]:
    """What verify finds in the tables."""
    with closing(database.connect()) as connection:
        return list(flaws_of_tables(connection, FILE_KINDS, None, Scope(), no_progress))
