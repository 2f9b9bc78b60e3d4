"""Reads a small file whole, before any of its records joins a transaction."""

from functools import partial

from processing.document import Document, LongKey, Miscounted, RepeatedKey
from processing.errors import BadFile, TooLarge
from processing.file_types import Kinds
from processing.loading_file import LoadingFile
from processing.records import Parsed
from processing.source import MAX_SHARED_BYTES
from processing.text import check_filled, open_text

#: Errors of a pass over a document that only a careful pass can read.
MUST_BE_CAREFUL = (RepeatedKey, LongKey, Miscounted)

#: Rejects of a small file that are held together: each takes hundreds of bytes, however short its text is.
_MAX_REJECTS = 10_000


def read_whole(file: LoadingFile, kinds: Kinds) -> list[Parsed]:
    """Returns all elements of a small file; raises TooLarge if its text, or its records, are not small."""
    try:
        elements = _read_once(file, kinds, careful=False)
    except MUST_BE_CAREFUL as why:
        file.note_careful(why)
        elements = _read_once(file, kinds, careful=True)
    file.opened.check_unchanged()
    return elements


def _read_once(file: LoadingFile, kinds: Kinds, *, careful: bool) -> list[Parsed]:
    elements, left = [], _MAX_REJECTS
    try:
        open_again = partial(open_text, file.opened, MAX_SHARED_BYTES)
        document = Document(file.task.name, open_again, careful=careful, kinds=kinds)
        file.kind = document.kind
        for parsed in document.parsed():
            left -= len(parsed.rejected)
            if left < 0:
                raise TooLarge
            elements.append(parsed)
    except BadFile:
        check_filled(file.opened)
        raise
    # Counted from the list, not in the loop above: what is in the list is what is handed on.
    records = sum(len(parsed.records) + len(parsed.rejected) for parsed in elements)
    document.check(sum(parsed.count for parsed in elements), records)
    file.extra = document.extra
    if careful:
        file.note_fault(document)
    return elements
