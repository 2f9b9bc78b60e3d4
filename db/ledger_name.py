"""The name of a ledger: a dump, pg_upgrade and replicas carry it along, a new database gets another one."""

import secrets

from psycopg2.extensions import connection as Connection

from db.connection import translate_errors


def find(connection: Connection) -> str | None:
    """Returns the name; None if nothing was ever to be loaded into this database."""
    with translate_errors(), connection, connection.cursor() as cursor:
        cursor.execute("SELECT name FROM mobileye_data.ledger_name")
        row = cursor.fetchone()
        return row[0] if row else None


def give(connection: Connection) -> bool:
    """Gives the ledger a random name; returns whether it is a new one, without a file."""
    with translate_errors(), connection, connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO mobileye_data.ledger_name (name) VALUES (%s) ON CONFLICT DO NOTHING
            RETURNING NOT EXISTS (SELECT FROM mobileye_data.ingested_files)
            """,
            (secrets.token_hex(16),),
        )
        row = cursor.fetchone()  # none: another daemon was faster
        return row is not None and row[0]
