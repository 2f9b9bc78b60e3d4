"""Rejected records that are loaded again: each is a file of its own, and resolved together with its rows."""

from collections.abc import Mapping, Sequence

from msgspec import Struct
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extras import execute_values

from db.connection import Database, translated
from db.rejects import Stored
from db.sink import PostgresSink, PostgresTransaction, Waiting
from db.writer import Writer
from processing.errors import DatabaseUnavailable
from processing.records import Kind
from processing.sink import Counts, Delivery

#: Records held in memory, and loaded in one transaction.
PAGE = 200

Key = tuple[int, int]


class Open(Struct, frozen=True):
    """A rejected record that no replay has loaded; text is its JSON, as edited last."""

    file_id: int
    position: int
    file: str
    kind: str
    text: str

    @property
    def key(self) -> Key:
        return self.file_id, self.position

    @property
    def name(self) -> str:
        """What the ledger calls it."""
        return f"{self.file}, record {self.position} of file {self.file_id}"


def find_open(cursor: Cursor, after: Key, *, file: str | None, reason: str | None) -> list[Open]:
    """The next open records, all or of one file or reason."""
    cursor.execute(
        """
        SELECT r.file_id, r.position, f.name, f.kind, coalesce(r.edited, r.original)::text
        FROM mobileye_data.rejected_records r
        JOIN mobileye_data.ingested_files f USING (file_id)
        WHERE r.resolved_at IS NULL
          AND (r.file_id, r.position) > %(after)s
          AND (%(file)s IS NULL OR f.name = %(file)s)
          AND (%(reason)s IS NULL OR r.reason = %(reason)s)
        ORDER BY r.file_id, r.position
        LIMIT %(page)s
        """,
        {"after": after, "file": file, "reason": reason, "page": PAGE},
    )
    return [Open(*row) for row in cursor.fetchall()]


def edit(cursor: Cursor, edits: Mapping[Key, str]) -> list[Open]:
    """Gives records another text; gives back those that are open."""
    rows = execute_values(
        cursor,
        """
        UPDATE mobileye_data.rejected_records r
        SET edited = given.text::json
        FROM (VALUES %s) AS given (file_id, position, text), mobileye_data.ingested_files f
        WHERE r.file_id = given.file_id AND r.position = given.position AND r.resolved_at IS NULL
          AND f.file_id = r.file_id
        RETURNING r.file_id, r.position, f.name, f.kind, r.edited::text
        """,
        [(*key, text) for key, text in edits.items()],
        template="(%s::bigint, %s::bigint, %s)",
        page_size=PAGE,
        fetch=True,
    )
    return [Open(*row) for row in rows]


def resolve(cursor: Cursor, keys: Sequence[Key]) -> None:
    """In the transaction of their rows; of two replays of a record one must give up."""
    cursor.execute(
        """
        UPDATE mobileye_data.rejected_records
        SET resolved_at = now()
        WHERE resolved_at IS NULL
          AND (file_id, position) IN (SELECT * FROM unnest(%s::bigint[], %s::bigint[]))
        """,
        ([file_id for file_id, _ in keys], [position for _, position in keys]),
    )
    if cursor.rowcount != len(keys):
        raise DatabaseUnavailable("another replay has loaded one of these records: start this one again")


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
    """Resolves the records whose rows it commits."""

    def __init__(
        self,
        connection: Connection,
        writer: Writer,
        waiting: Waiting,
        records: Mapping[str, Open],
        found: dict[str, Stored],
    ) -> None:
        super().__init__(connection, writer, waiting)
        self._records = records
        self._found = found
        self._resolved: list[Key] = []

    def begin_file(self, delivery: Delivery, kind: Kind) -> None:
        super().begin_file(delivery, kind)
        self._resolved.append(self._records[delivery.name].key)

    def redelivered(self, delivery: Delivery) -> None:
        """The same record has been loaded already: its rows are there."""
        super().redelivered(delivery)
        self._resolved.append(self._records[delivery.name].key)

    def fail(self, delivery: Delivery, kind: str | None, reason: str) -> None:
        """The record stays open, with the reason for which it was rejected now."""
        why = self._found.setdefault(delivery.name, Stored(0, "$", "invalid", reason))
        with translated():
            keep_open(self._cursor, self._records[delivery.name].key, why)

    def finish(self) -> list[Counts]:
        counts = super().finish()
        names = {entry.file_id: entry.delivery.name for entry in self._entries}
        self._found.update({names[reject.file_id]: reject for reject in reversed(self.find_rejects(PAGE))})
        return counts

    def _enter(self) -> None:
        super()._enter()
        resolve(self._cursor, self._resolved)


class ReplaySink(PostgresSink):
    """Takes open records, each as the file of its name; found says why some of them stay open."""

    gives_up_locks = False

    def __init__(self, database: Database, records: Mapping[str, Open]) -> None:
        super().__init__(database)
        self.found: dict[str, Stored] = {}
        self._records = records

    def _begin(self, connection: Connection, writer: Writer) -> ReplayTransaction:
        return ReplayTransaction(connection, writer, self._waiting, self._records, self.found)
