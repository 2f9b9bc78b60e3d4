"""The messages that wake the daemon, from its observer, its workers, its probe and its signals."""

import queue
from collections.abc import Mapping

from msgspec import Struct

from processing.errors import DatabaseUnavailable, Misconfigured, SourceUnavailable
from processing.source import Identity
from service.worker import Results


class FileArrived(Struct, frozen=True):
    """A message: the observer noticed a file."""

    name: str


class ScanWanted(Struct, frozen=True):
    """A message: names may have been lost, or the daemon has to look up from its inbox."""


class PageListed(Struct, frozen=True):
    """A message: a part of a bucket was listed, with the identities by name; or the error of trying to.

    began: when it was asked for, on the monotonic clock. has_moved: other objects are to be loaded from here
    than before.
    """

    found: Mapping[str, Identity]
    began: float = 0.0
    is_last: bool = False
    has_moved: bool = False
    error: SourceUnavailable | DatabaseUnavailable | Misconfigured | None = None


class BatchDone(Struct, frozen=True):
    """A message: the outcomes of a batch are there."""

    flight: Results


class ProbeAnswered(Struct, frozen=True):
    """A message: the probe is over. It only wakes the daemon, which judges the probe in any case."""


Inbox = queue.SimpleQueue[FileArrived | ScanWanted | PageListed | BatchDone | ProbeAnswered]
