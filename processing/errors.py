"""What can go wrong, sorted by what then happens to the file."""


class BadFile(Exception):
    """The file can't be loaded as it is: it is recorded as failed and set aside."""


class NotReady(Exception):
    """The file stays and is tried again: half-written, being written, changed, not readable now."""


class Incomplete(NotReady):
    """The file ends before its document does: more may come, until it has settled."""


class Gone(Exception):
    """The name is no longer there: another process has taken the file."""


class TooLarge(Exception):
    """The file is too large to share a transaction: it is loaded alone."""


class RetryAlone(Exception):
    """The file would roll back the transaction that it shares: it is loaded alone."""


class DatabaseUnavailable(Exception):
    """The file stays; loading goes on when the database answers again."""


class Setback(DatabaseUnavailable):
    """In the middle of a transaction: the connection was lost, or the server ran out of something.

    The file may have brought it about, but that can't be told: it is never failed for it.
    """


class TransactionFailed(DatabaseUnavailable):
    """The transaction failed; whether by the fault of its files shows when the server is asked."""


class TryAgain(DatabaseUnavailable):
    """The database asks for the same transaction once more: a deadlock, a lost race."""


class LockTimeout(TryAgain):
    """Another transaction holds a lock, and may do so for long."""


class Contended(Exception):
    """Another transaction is in the way of the file: it is tried again later, alone."""


class Misconfigured(Exception):
    """A person must mend the settings or the database's rights; nothing is touched until then."""


class Refused(Misconfigured):
    """The database does not take what it was given: a row, a reject, an entry of the ledger.

    Where no file is to blame, a person must mend what was changed in the tables.
    """


class WorkerDied(Exception):
    """The process that was loading the batch has ended, or failed in an unforeseen way."""


class WorkerHung(WorkerDied):
    """It made no progress for so long that it had to be killed."""


class WorkerKilled(WorkerDied):
    """With SIGKILL, by whomever: not necessarily because of what it was loading."""


class BatchLost(Exception):
    """The batch was not loaded, for a reason that lies elsewhere."""
