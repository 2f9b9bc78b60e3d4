"""Applies schema.sql, and only if the database does not have this very version of it."""

import hashlib
from pathlib import Path

from psycopg2.extensions import connection as Connection

from db.connection import translated

_SCHEMA_SQL = Path(__file__).parent.parent / "schema.sql"

_APPLIED = """
    SELECT obj_description(oid, 'pg_namespace')
    FROM pg_namespace
    WHERE nspname = 'mobileye_data'
"""


def apply(connection: Connection) -> bool:
    """Brings the tables about; False if they were there. The version stands in the schema's comment.

    Applying takes locks that would wait for running loads: hence the look first.
    """
    sql = _SCHEMA_SQL.read_text(encoding="utf-8")
    version = f"Mobileye Data Processing System, schema {hashlib.sha256(sql.encode()).hexdigest()[:16]}"
    with translated(), connection, connection.cursor() as cursor:
        cursor.execute(_APPLIED)
        if cursor.fetchone() == (version,):
            return False
        # Two daemons may start at once.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('mobileye_data.schema'))")
        cursor.execute(sql)
        cursor.execute("COMMENT ON SCHEMA mobileye_data IS %s", (version,))
        return True
