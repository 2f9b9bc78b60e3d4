"""The messages that wake the daemon, from its observer, its workers, its probe and its signals."""

import queue

from msgspec import Struct

from service.worker import Results


class FileArrived(Struct, frozen=True):
    """A message: the observer noticed a file."""

    name: str


class ScanWanted(Struct, frozen=True):
    """A message: names may have been lost, or the daemon has to look up from its inbox."""


class BatchDone(Struct, frozen=True):
    """A message: the outcomes of a batch are there."""

    flight: Results


class ProbeAnswered(Struct, frozen=True):
    """A message: the probe is over. It only wakes the daemon, which judges the probe in any case."""


Inbox = queue.SimpleQueue[FileArrived | ScanWanted | BatchDone | ProbeAnswered]
