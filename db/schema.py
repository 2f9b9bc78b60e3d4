"""Applies schema.sql, and only if the database does not have all of this very version of it."""

import hashlib
import re
from pathlib import Path

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from db.connection import translate_errors
from processing.errors import Misconfigured

_SCHEMA_SQL = Path(__file__).parent.parent / "schema.sql"

#: The tables, sequences, views and functions that it makes; a view and a function "name(" may share a name.
_NAMED = re.compile(r"^CREATE [^;(]*?(mobileye_data\.\w+\(?)", re.MULTILINE)

#: The number of its version, in the file's head and in the schema's comment.
_NUMBER = re.compile(r"\bschema (\d+)\b")

_DATABASE = """
    SELECT current_database(), current_setting('server_encoding'),
           current_setting('transaction_read_only')::bool
"""

_APPLIED = """
    SELECT obj_description(to_regnamespace('mobileye_data'), 'pg_namespace'),
           bool_and(CASE right(name, 1) WHEN '(' THEN to_regproc(rtrim(name, '('))::oid
                                        ELSE to_regclass(name)::oid END IS NOT NULL)
    FROM unnest(%s) AS name
"""


def apply(connection: Connection) -> bool:
    """Brings the tables about; False if all were there. The version stands in the schema's comment.

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
        if _is_applied(cursor, sql):
            return False
        # Two daemons may start at once, and the other may be a newer version.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('mobileye_data.schema'))")
        if _is_applied(cursor, sql):
            return False
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


def _version(sql: str) -> str:
    digest = hashlib.sha256(sql.encode()).hexdigest()[:16]
    return f"Mobileye Data Processing System, schema {_number(sql)} ({digest})"


def _number(text: str | None) -> int:
    """Returns the number of a version; 0 before versions had one."""
    # Those had a digest in its place, which may consist of digits alone.
    found = _NUMBER.search(text or "")
    return int(found[1]) if found and len(found[1]) < 16 else 0


def _is_applied(cursor: Cursor, sql: str) -> bool:
    cursor.execute(_APPLIED, (_NAMED.findall(sql),))
    comment, has_all = cursor.fetchone()  # type: ignore[misc]  # one row
    if _number(comment) > _number(sql):
        raise Misconfigured(
            f"the database's tables are of schema {_number(comment)}, which a newer version of this program "
            f"made; this one knows schema {_number(sql)}: use the newer one"
        )
    return bool(has_all) and comment == _version(sql)
