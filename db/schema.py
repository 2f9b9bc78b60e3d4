"""Applies schema.sql, and only if the database does not have all of this very version of it."""

import hashlib
import re
from pathlib import Path

from psycopg2.extensions import connection as Connection

from db.connection import translate_errors
from processing.errors import Misconfigured

_SCHEMA_SQL = Path(__file__).parent.parent / "schema.sql"

#: The tables, sequences, views and functions that it makes.
_NAMED = re.compile(r"^CREATE [^;(]*?(mobileye_data\.\w+)", re.MULTILINE)

_DATABASE = "SELECT current_database(), current_setting('server_encoding')"

_APPLIED = """
    SELECT obj_description(to_regnamespace('mobileye_data'), 'pg_namespace'),
           bool_and(coalesce(to_regclass(name)::oid, to_regproc(name)::oid) IS NOT NULL)
    FROM unnest(%s) AS name
"""


def apply(connection: Connection) -> bool:
    """Brings the tables about; False if all were there. The version stands in the schema's comment.

    Raises Misconfigured where texts could not be stored as they are: other encodings than UTF-8 lack
    characters, SQL_ASCII counts bytes for them.
    Applying takes locks that would wait for running loads: hence the look first.
    """
    sql = _SCHEMA_SQL.read_text(encoding="utf-8")
    version = f"Mobileye Data Processing System, schema {hashlib.sha256(sql.encode()).hexdigest()[:16]}"
    with translate_errors(), connection, connection.cursor() as cursor:
        cursor.execute(_DATABASE)
        name, encoding = cursor.fetchone()  # type: ignore[misc]  # one row
        if encoding != "UTF8":
            raise Misconfigured(f"the database {name} is {encoding}: make one with ENCODING 'UTF8'")
        cursor.execute(_APPLIED, (_NAMED.findall(sql),))
        if cursor.fetchone() == (version, True):
            return False
        # Two daemons may start at once.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('mobileye_data.schema'))")
        cursor.execute(sql)
        cursor.execute("COMMENT ON SCHEMA mobileye_data IS %s", (version,))
        return True
