"""Failed files that a person has not dealt with: neither acknowledged, nor loaded later under their name."""

from collections.abc import Sequence

from psycopg2.extensions import cursor as Cursor

#: Conditions on a failed entry f of the ledger. One that was dismissed and then failed again is open again.
IS_DISMISSED = "(f.dismissed_at IS NOT NULL AND f.dismissed_at >= f.finished_at)"
#: Both searches are by an index: a join would read the whole ledger.
IS_REPLACED = """EXISTS (
    SELECT FROM (
        SELECT state, finished_at FROM mobileye_data.ingested_files
        WHERE name = f.last_name AND last_name = name
        UNION ALL
        SELECT state, finished_at FROM mobileye_data.ingested_files
        WHERE last_name = f.last_name AND last_name <> name) l
    WHERE l.state = 'loaded' AND l.finished_at > f.finished_at)"""
#: That an entry f failed, and that nobody has dealt with it.
IS_OPEN = f"f.state = 'failed' AND NOT {IS_DISMISSED} AND NOT {IS_REPLACED}"


def dismiss(cursor: Cursor, name: str, digest: bytes | None, who: str) -> int:
    """Acknowledges the failures of a file, by its name or its bytes; returns how many there were."""
    cursor.execute(
        f"""
        UPDATE mobileye_data.ingested_files f
        SET dismissed_at = clock_timestamp(), dismissed_by = %s
        WHERE state = 'failed' AND (%s IN (name, last_name) OR sha256 = %s) AND NOT {IS_DISMISSED}
        """,
        (who, name, digest),
    )
    return cursor.rowcount


def failures(cursor: Cursor) -> Sequence[tuple[str, int, bytes | None, bool]]:
    """Returns name, size and digest of the files that failed and were not replaced; and whether dismissed."""
    cursor.execute(
        f"""
        SELECT f.last_name, f.size, f.sha256, {IS_DISMISSED}
        FROM mobileye_data.ingested_files f
        WHERE f.state = 'failed' AND NOT {IS_REPLACED}
        ORDER BY f.file_id
        """
    )
    return [(name, size, digest and bytes(digest), is_ok) for name, size, digest, is_ok in cursor.fetchall()]
