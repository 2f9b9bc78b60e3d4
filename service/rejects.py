"""A rejected record as a document of its own, and the rows that are there of it."""

import io
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from operator import attrgetter

from psycopg2.extensions import cursor as Cursor

from db.reject_pages import Reject
from db.stored_rows import StoredRow, find_rows
from processing.document import Document
from processing.errors import BadFile
from processing.file_types import KINDS, Kinds
from processing.records import Record
from service.file_kinds import FILE_KINDS, FileKinds


def document(reject: Reject, kinds: Kinds = KINDS) -> bytes:
    """The content of a file with this record alone."""
    return f'{{"{kinds[reject.kind].key}":[{reject.text}]}}'.encode()


def rows_of(
    cursor: Cursor, rejects: Sequence[Reject], known: FileKinds = FILE_KINDS
) -> Iterator[tuple[Reject, list[StoredRow | None]]]:
    """The stored row of each record, None where it is missing; no rows at all if it can't be loaded."""
    for kind, kindred in groupby(sorted(rejects, key=attrgetter("kind", "key")), attrgetter("kind")):
        records = [(reject, _records(reject, known.kinds)) for reject in kindred]
        rows = iter(find_rows(cursor, known.tables[kind], [record for _, some in records for record in some]))
        for reject, some in records:
            yield reject, list(islice(rows, len(some)))


def _records(reject: Reject, kinds: Kinds) -> list[Record]:
    content = document(reject, kinds)
    try:
        read = Document(reject.name, lambda: io.BytesIO(content), careful=True, kinds=kinds)
        elements = list(read.parsed())
    except BadFile:
        return []
    if any(parsed.rejected for parsed in elements):
        return []
    return [record for parsed in elements for record in parsed.records]
