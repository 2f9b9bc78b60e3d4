"""Applies migrations and schema.sql, and only if the database does not have all of this very version."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db.connection import translate_errors
from processing.errors import Misconfigured

_SCHEMA_SQL = Path(__file__).parent.parent / "schema.sql"

#: Changes of tables that exist already, each named by the number of the schema that needs it.
_MIGRATIONS = Path(__file__).parent / "migrations"

#: The tables, sequences, views and functions that it makes; a view and a function "name(" may share a name.
_NAMED = re.compile(r"^CREATE [^;(]*?(mobileye_data\.\w+\(?)", re.MULTILINE)

#: The number of its version, in the file's head and in the schema's comment.
_NUMBER = re.compile(r"\bschema (\d+)\b")

_DATABASE = """
    SELECT current_database(), current_setting('server_encoding'),
           current_setting('transaction_read_only')::bool
"""

#: Read from the catalogs themselves: to_regclass() and the like remember, until the transaction ends, that a
#: name was not there, even if another daemon has made it meanwhile.
_APPLIED = """
    WITH ours AS (SELECT oid FROM pg_namespace WHERE nspname = 'mobileye_data'),
         named(name) AS (
             SELECT 'mobileye_data.' || proname || '(' FROM pg_proc JOIN ours ON pronamespace = ours.oid
             UNION SELECT 'mobileye_data.' || relname FROM pg_class JOIN ours ON relnamespace = ours.oid)
    SELECT (SELECT obj_description(oid, 'pg_namespace') FROM ours),
           (SELECT bool_and(name IN (SELECT name FROM named)) FROM unnest(%s::text[]) AS name)
"""

_HAS_TABLES = """
    SELECT EXISTS (
        SELECT FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'mobileye_data')
"""


def apply(connection: Connection, *, again: bool = False) -> bool:
    """Brings the tables about; False if all were there. The version stands in the schema's comment.

    Older tables get the migrations that they lack, and then schema.sql, all in one transaction; with `again`
    all tables get schema.sql.

    Raises Misconfigured where the tables are of a newer version, and where texts could not be stored as they
    are: other encodings than UTF-8 lack characters, SQL_ASCII counts bytes for them.
    Applying takes locks that would wait for running loads: hence the look first.
    """
    sql = _SCHEMA_SQL.read_text(encoding="utf-8")
    with translate_errors(), connection, connection.cursor() as cursor:
        cursor.execute(_DATABASE)
        name, encoding, _ = cursor.fetchone()  # type: ignore[misc]  # one row
        if encoding != "UTF8":
            raise Misconfigured(f"the database {name} is {encoding}: make one with ENCODING 'UTF8'")
        if _is_applied(cursor, sql) and not again:
            return False
        # Two daemons may start at once, and the other may be a newer version.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('mobileye_data.schema'))")
        if _is_applied(cursor, sql) and not again:
            return False
        for migration in _missing(cursor):
            cursor.execute(migration)
        cursor.execute(sql)
        cursor.execute("COMMENT ON SCHEMA mobileye_data IS %s", (_version(sql),))
        return True


def apply_or_check(connection: Connection) -> None:
    """Brings the tables about; where nothing can be written, raises Misconfigured if they are not there."""
    with translate_errors(), connection, connection.cursor() as cursor:
        cursor.execute(_DATABASE)
        name, _, is_read_only = cursor.fetchone()  # type: ignore[misc]  # one row
        if is_read_only:
            if not _is_applied(cursor, _SCHEMA_SQL.read_text(encoding="utf-8")):
                raise Misconfigured(
                    f"the database {name} lacks tables of this version and is read-only: "
                    "first start the daemon or a command where it can be written"
                )
            return
    apply(connection)


def check(connection: Connection) -> None:
    """Raises Misconfigured unless the tables are those of this version; changes nothing."""
    with translate_errors(), connection, connection.cursor() as cursor:
        cursor.execute(_DATABASE)
        name, _, _ = cursor.fetchone()  # type: ignore[misc]  # one row
        if not _is_applied(cursor, _SCHEMA_SQL.read_text(encoding="utf-8")):
            raise Misconfigured(
                f"the database {name} lacks tables of this version: "
                "first start the daemon or a command of this version on it"
            )


def _version(sql: str) -> str:
    digest = hashlib.sha256(sql.encode()).hexdigest()[:16]
    return f"Mobileye Data Processing System, schema {_number(sql)} ({digest})"


def _number(text: str | None) -> int:
    """Returns the number of a version; 0 before versions had one."""
    # Those had a digest in its place, which may consist of digits alone.
    found = _NUMBER.search(text or "")
    return int(found[1]) if found and len(found[1]) < 16 else 0


def _missing(cursor: Cursor) -> Iterator[str]:
    """Yields the migrations that the tables lack; none for a database without tables."""
    cursor.execute(_HAS_TABLES)
    ((has_tables,),) = cursor.fetchall()
    comment, _ = _applied(cursor, "")
    for path in sorted(_MIGRATIONS.glob("*.sql")):
        if has_tables and int(path.stem.partition("_")[0]) > _number(comment):
            yield path.read_text(encoding="utf-8")


def _applied(cursor: Cursor, sql: str) -> tuple[str | None, bool]:
    """Returns the schema's comment, and whether all that the file makes is there."""
    cursor.execute(_APPLIED, (_NAMED.findall(sql),))
    comment, has_all = cursor.fetchone()  # type: ignore[misc]  # one row
    return comment, bool(has_all)


def _is_applied(cursor: Cursor, sql: str) -> bool:
    comment, has_all = _applied(cursor, sql)
    if _number(comment) > _number(sql):
        raise Misconfigured(
            f"the database's tables are of schema {_number(comment)}, which a newer version of this program "
            f"made; this one knows schema {_number(sql)}: use the newer one"
        )
    return has_all and comment == _version(sql)
