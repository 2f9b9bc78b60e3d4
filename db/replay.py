"""Rejected records that are loaded again: each is a file of its own, and resolved together with its rows."""

from collections.abc import Mapping, Sequence

from msgspec.structs import replace
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from db import ledger
from db.connection import Database, translate_errors
from db.ledger import Entry
from db.reject_pages import PAGE, Key, Reject, Sized
from db.rejects import Stored
from db.sink import PostgresSink, PostgresTransaction, Waiting
from db.writer import Writer
from processing.errors import DatabaseUnavailable
from processing.records import Kind
from processing.sink import Counts, Delivery


def edit(cursor: Cursor, edits: Mapping[Key, str]) -> list[Sized]:
    """Gives records of one page another text; gives back those that are open."""
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
    """The record is still wrong, maybe for another reason."""
    cursor.execute(
        """
        UPDATE mobileye_data.rejected_records
        SET path = %s, reason = %s, detail = %s
        WHERE file_id = %s AND position = %s AND resolved_at IS NULL
        """,
        (why.path, why.reason, why.detail, *key),
    )


class ReplayTransaction(PostgresTransaction):
    """Resolves the records whose rows it commits.

    A replay is no delivery: the ledger is not asked for it, and its entry has no digest. A dropped file may
    have the very bytes of a record's document, before or after.
    """

    def __init__(
        self,
        connection: Connection,
        writer: Writer,
        waiting: Waiting,
        records: Mapping[str, Reject],
        found: dict[str, Stored],
    ) -> None:
        super().__init__(connection, writer, waiting)
        self._records = records
        self._found = found

    def loaded(self, digests: Sequence[bytes]) -> set[bytes]:
        """Returns none: resolve() finds out whether a record is loaded already."""
        with self._waiting(), translate_errors():
            self._file_ids, self._writer.ruled = ledger.draw_file_ids(self._cursor, len(digests))
        return set()

    def begin_file(self, delivery: Delivery, kind: Kind) -> None:
        super().begin_file(replace(delivery, sha256=None), kind)

    def fail(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """The record stays open, with the reason for which it was rejected now."""
        why = self._found.setdefault(delivery.name, Stored(0, "$", "invalid", reason))
        with translate_errors():
            keep_open(self._cursor, self._records[delivery.name].key, why)

    def finish(self) -> list[Counts]:
        super().finish()
        names = {entry.file_id: entry.delivery.name for entry in self._entries}
        self._found.update({names[reject.file_id]: reject for reject in reversed(self.find_rejects(PAGE))})
        return [self._judge(entry) for entry in self._entries]

    def _judge(self, entry: Entry) -> Counts:
        """A record without a row is none that could be resolved."""
        if entry.read:
            return entry.counts
        detail = "Expected at least one detection, got none"
        self._found[entry.delivery.name] = Stored(entry.file_id, "$", "invalid", detail)
        return Counts(read=1, rejected=1)

    def _enter(self) -> None:
        super()._enter()
        resolve(
            self._cursor, [(self._records[entry.delivery.name], entry.file_id) for entry in self._entries]
        )


class ReplaySink(PostgresSink):
    """Takes open records, each as the file of its name; found says why some of them stay open."""

    gives_up_locks = False

    def __init__(self, database: Database, records: Mapping[str, Reject]) -> None:
        super().__init__(database)
        self.found: dict[str, Stored] = {}
        self._records = records

    def _begin(self, connection: Connection, writer: Writer) -> ReplayTransaction:
        return ReplayTransaction(connection, writer, self._waiting, self._records, self.found)
