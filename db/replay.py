"""Rejected records loaded again: each is a file of its own, and resolved together with its rows."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from msgspec.structs import replace
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from db.connection import Database, translate_errors
from db.reject_pages import PAGE, Key, Reject, Sized
from db.rejects import Stored
from db.sink import DelegatingTransaction, PostgresSink, PostgresTransaction
from db.tables import TABLES, Tables
from processing.errors import DatabaseUnavailable
from processing.records import Kind
from processing.sink import Counts, Delivery


def edit(cursor: Cursor, edits: Mapping[Key, str]) -> list[Sized]:
    """Gives records of one page another text; returns those that are open."""
    rows = execute_values(
        cursor,
        """
        UPDATE mobileye_data.rejected_records r
        SET edited = given.text::json
        FROM (VALUES %s) AS given (file_id, position, text)
        WHERE r.file_id = given.file_id AND r.position = given.position AND r.resolved_at IS NULL
        RETURNING r.file_id, r.position, octet_length(given.text)
        """,
        [(*key, text) for key, text in edits.items()],
        template="(%s::bigint, %s::bigint, %s)",
        page_size=PAGE,
        fetch=True,
    )
    return [Sized(*row) for row in rows]


def resolve(cursor: Cursor, loaded: Sequence[tuple[Reject, int]]) -> None:
    """Notes the ledger entry of each record's rows, in their transaction; of two replays of a record, or a
    replay and an edit, one must give up."""
    cursor.execute(
        """
        UPDATE mobileye_data.rejected_records r
        SET resolved_at = now(), resolved_by = loaded.entry
        FROM unnest(%s::bigint[], %s::bigint[], %s::bytea[], %s::bigint[])
            AS loaded (file_id, position, digest, entry)
        WHERE r.file_id = loaded.file_id AND r.position = loaded.position AND r.resolved_at IS NULL
          AND sha256(convert_to(coalesce(r.edited, r.original)::text, 'UTF8')) = loaded.digest
        """,
        (
            [record.file_id for record, _ in loaded],
            [record.position for record, _ in loaded],
            [record.digest for record, _ in loaded],
            [entry for _, entry in loaded],
        ),
    )
    if cursor.rowcount != len(loaded):
        raise DatabaseUnavailable("one of these records was loaded or edited meanwhile: start this one again")


def keep_open(cursor: Cursor, key: Key, why: Stored) -> None:
    """Notes why a record is still wrong, maybe for another reason."""
    cursor.execute(
        """
        UPDATE mobileye_data.rejected_records
        SET path = %s, reason = %s, detail = %s
        WHERE file_id = %s AND position = %s AND resolved_at IS NULL
        """,
        (why.path, why.reason, why.detail, *key),
    )


class Resolver:
    """Joins the transactions of a replay: a record is resolved together with its rows, or not at all."""

    def __init__(self, records: Mapping[str, Reject]) -> None:
        self._records = records

    def before_commit(self, transaction: PostgresTransaction) -> None:
        """Resolves the records whose rows are about to be committed."""
        loaded = [(self._records[entry.delivery.name], entry.file_id) for entry in transaction.entries]
        resolve(transaction.cursor, loaded)


class ReplaySink:
    """Takes open records, each as the file of its name; found says why some of them stay open.

    A replay is no delivery: the ledger is not asked for it, and its entry has no digest. A dropped file may
    have the very bytes of a record's document, before or after.
    """

    def __init__(
        self,
        database: Database,
        records: Mapping[str, Reject],
        tables: Tables = TABLES,
        max_future_hours: float = 0.0,
    ) -> None:
        self.found: dict[str, Stored] = {}
        self._records = records
        self._sink = PostgresSink(
            database, participants=[Resolver(records)], tables=tables, max_future_hours=max_future_hours
        )

    @contextmanager
    def transaction(self, *, is_hasty: bool = False) -> Iterator["ReplayTransaction"]:
        """Begins a transaction that is never hasty: the person who waits has nothing else to do."""
        with self._sink.transaction() as transaction:
            yield ReplayTransaction(transaction, self.found)

    def record_failure(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """Leaves the record open, with the reason for which it was rejected now."""
        why = self.found.setdefault(delivery.name, Stored(0, "$", "invalid", reason))
        with self._sink.transaction() as transaction:
            with translate_errors():
                keep_open(transaction.cursor, self._records[delivery.name].key, why)
            transaction.commit()

    def close(self) -> None:
        self._sink.close()


class ReplayTransaction(DelegatingTransaction):
    """Enters files without a digest, and notes which records are rejected again."""

    def __init__(self, inner: PostgresTransaction, found: dict[str, Stored]) -> None:
        super().__init__(inner)
        self._found = found

    def loaded(self, digests: Sequence[bytes]) -> set[bytes]:
        """Returns nothing: whether a record is loaded already is for resolve() to say."""
        self.inner.loaded(digests)
        return set()

    def begin_file(self, delivery: Delivery, kind: Kind) -> None:
        self.inner.begin_file(replace(delivery, sha256=None), kind)

    def finish(self) -> list[Counts]:
        counts = self.inner.finish()
        names = {entry.file_id: entry.delivery.name for entry in self.inner.entries}
        # The first reject of a record comes last, and stays.
        self._found.update({names[found.file_id]: found for found in reversed(self.inner.find_rejects(PAGE))})
        for index, entry in enumerate(self.inner.entries):
            if not entry.read:  # without a row there is nothing by which it could be resolved
                detail = "Expected at least one detection, got none"
                self._found[entry.delivery.name] = Stored(entry.file_id, "$", "invalid", detail)
                counts[index] = Counts(read=1, rejected=1)
        return counts
