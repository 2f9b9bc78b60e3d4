"""PostgreSQL as the sink of streams: positions move in the transaction of the rows, by compare-and-set."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from datetime import datetime

from msgspec import Struct
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db.connection import Database, translate_errors
from db.sink import HASTY, DelegatingTransaction, PostgresSink, PostgresTransaction, Waiting
from db.tables import TABLES, Tables
from processing.records import Kind
from processing.sink import Delivery
from processing.stream import Fenced, Gap, Messages, Move, Position, TopicPartition

#: A transaction is sent without a pause: one that sends nothing is of a consumer that is frozen, and holds up
#: whoever has its partitions now.
_HASTY = HASTY + "SET LOCAL idle_in_transaction_session_timeout = '10s';"

_FIND = """
    SELECT topic, topic_id, partition, next_offset, moved_at
    FROM mobileye_data.stream_positions p
    WHERE NOT EXISTS (
        SELECT FROM mobileye_data.stream_gaps g
        WHERE g.topic_id = p.topic_id AND g.partition = p.partition AND g.resume_offset IS NULL)
"""

_MOVE = """
    UPDATE mobileye_data.stream_positions p
    SET next_offset = moved.next_offset, moved_at = clock_timestamp()
    FROM unnest(%s::text[], %s::integer[], %s::bigint[], %s::bigint[])
        AS moved (topic_id, partition, before, next_offset)
    WHERE p.topic_id = moved.topic_id AND p.partition = moved.partition AND p.next_offset = moved.before
"""


class PostgresStream:
    """Keeps one connection for its transactions, and makes a short one for each look at the positions."""

    def __init__(
        self,
        database: Database,
        waiting: Waiting = nullcontext,
        tables: Tables = TABLES,
        max_future_hours: float = 0.0,
    ) -> None:
        self._database = database
        self._moves = _Moves()
        self._sink = PostgresSink(
            database,
            waiting,
            participants=[self._moves],
            tables=tables,
            max_future_hours=max_future_hours,
            hasty=_HASTY,
        )

    def positions(self, topics: Sequence[str]) -> list[Position]:
        """Returns the positions in topics of these names, also in such that are gone without a noted gap."""
        with self._cursor() as cursor:
            return find_positions(cursor, topics)

    def begin(self, positions: Sequence[Position]) -> None:
        """Adds positions of partitions that have none; leaves those that have one."""
        with self._cursor() as cursor:
            for position in positions:
                cursor.execute(
                    """
                    INSERT INTO mobileye_data.stream_positions (topic, topic_id, partition, next_offset)
                    VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING
                    """,
                    (*_key(position.partition), position.next_offset),
                )

    def accept(self, gap: Gap, who: str) -> None:
        """Notes a gap, and moves the position behind it; raises Fenced if it is not before the gap."""
        resume = gap.first_offset if gap.resume_offset is None else gap.resume_offset
        with self._cursor() as cursor:
            _move(cursor, [Move(gap.partition, gap.first_offset, resume)])
            cursor.execute(
                """
                INSERT INTO mobileye_data.stream_gaps
                    (topic, topic_id, partition, first_offset, resume_offset, reason, accepted_by)
                VALUES (%s, %s, %s, %s, %s, %s, %s)
                """,
                (*_key(gap.partition), gap.first_offset, gap.resume_offset, gap.reason, who),
            )

    @contextmanager
    def transaction(self) -> "Iterator[PostgresStreamTransaction]":
        """Begins a transaction that rolls back unless committed."""
        self._moves.moves = ()
        with self._sink.transaction(is_hasty=True) as inner:
            yield PostgresStreamTransaction(inner, self._moves)

    def interrupt(self) -> None:
        """Ends what another thread waits for, as if the server had gone."""
        self._sink.interrupt()

    def close(self) -> None:
        """Releases connections and the thread."""
        self._sink.close()

    @contextmanager
    def _cursor(self) -> Iterator[Cursor]:
        with (
            closing(self._database.connect()) as connection,
            translate_errors(),
            connection,
            connection.cursor() as cursor,
        ):
            yield cursor


class _Moves:
    """Joins the transaction of the rows."""

    def __init__(self) -> None:
        self.moves: Sequence[Move] = ()

    def before_commit(self, transaction: PostgresTransaction) -> None:
        _move(transaction.cursor, self.moves)


class PostgresStreamTransaction(DelegatingTransaction):
    """Rows of messages and the moves of their positions."""

    def __init__(self, inner: PostgresTransaction, moves: _Moves) -> None:
        super().__init__(inner)
        self._moves = moves

    def begin_messages(self, delivery: Delivery, kind: Kind, messages: Messages) -> None:
        """Begins an entry whose rejects are given the places of these messages."""
        self.inner.begin_file(delivery, kind)
        self.inner.entries[-1].messages = messages

    def move(self, moves: Sequence[Move]) -> None:
        """Moves positions in commit(), which raises Fenced, and keeps nothing, if one is not as before."""
        self._moves.moves = moves


class Moved(Struct, frozen=True):
    """A position, and when it moved last."""

    position: Position
    moved_at: datetime


def _moved_positions(cursor: Cursor) -> list[Moved]:
    """Returns all positions, without those of topics whose end was accepted."""
    cursor.execute(f"{_FIND} ORDER BY topic, topic_id, partition")
    return [
        Moved(Position(TopicPartition(*key), next_offset), moved_at)
        for *key, next_offset, moved_at in cursor.fetchall()
    ]


class AcceptedGap(Struct, frozen=True):
    """A gap that a person has accepted."""

    gap: Gap
    accepted_at: datetime
    accepted_by: str


class Stored(Struct, frozen=True):
    """Positions of all partitions, and the gaps that were accepted last."""

    positions: Sequence[Moved]
    gaps: Sequence[AcceptedGap]


def read_stored(connection: Connection, most_gaps: int) -> Stored:
    """Returns what the database knows of topics."""
    with translate_errors(), connection.cursor() as cursor:
        return Stored(_moved_positions(cursor), _accepted_gaps(cursor, most_gaps))


def _accepted_gaps(cursor: Cursor, most: int) -> list[AcceptedGap]:
    cursor.execute(
        """
        SELECT topic, topic_id, partition, first_offset, resume_offset, reason, accepted_at, accepted_by
        FROM mobileye_data.stream_gaps ORDER BY accepted_at DESC LIMIT %s
        """,
        (most,),
    )
    return [
        AcceptedGap(Gap(TopicPartition(*key), first, resume, reason), at, who)
        for *key, first, resume, reason, at, who in cursor.fetchall()
    ]


def find_positions(cursor: Cursor, topics: Sequence[str]) -> list[Position]:
    """Returns the positions in topics of these names, without those of topics whose end was accepted."""
    cursor.execute(f"{_FIND} AND topic = ANY (%s) ORDER BY topic, topic_id, partition", (list(topics),))
    return [Position(TopicPartition(*key), next_offset) for *key, next_offset, _ in cursor.fetchall()]


def _move(cursor: Cursor, moves: Sequence[Move]) -> None:
    cursor.execute(
        _MOVE,
        (
            [move.partition.topic_id for move in moves],
            [move.partition.partition for move in moves],
            [move.before for move in moves],
            [move.next_offset for move in moves],
        ),
    )
    if cursor.rowcount != len(moves):
        raise Fenced("another consumer has moved a position meanwhile")


def _key(partition: TopicPartition) -> tuple[str, str, int]:
    return partition.topic, partition.topic_id, partition.partition
