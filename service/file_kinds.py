"""The kinds of file that a program loads, each with its table."""

from typing import NamedTuple

from db.tables import TABLES, Tables
from processing.file_types import KINDS, Kinds


class FileKinds(NamedTuple):
    """The declared kinds and their tables, both by the name of the kind."""

    kinds: Kinds = KINDS
    tables: Tables = TABLES


FILE_KINDS = FileKinds()
