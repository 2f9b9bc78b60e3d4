"""The errors of loading, sorted by what happens to the file."""


class FileError(Exception):
    """A problem of one file: the rest of its batch continues."""


class BadFile(FileError):
    """The file can't be loaded as it is: it is recorded as failed and quarantined."""


class NotReady(FileError):
    """The file stays and is retried: it is half-written, being written, changed, or not readable now."""


class Incomplete(NotReady):
    """The file ends before its document does: more may come, as long as the file is not stable."""


class Gone(FileError):
    """The name is no longer there: another process has taken the file."""


class TooLarge(FileError):
    """The file is too large to share a transaction: it is loaded alone."""


class PartsWanted(FileError):
    """The file is good, and too large for a transaction of the sink: it may be committed in parts."""


class RetryAlone(FileError):
    """The file would roll back the transaction that it shares: it is loaded alone."""


class DatabaseUnavailable(Exception):
    """The file stays; loading continues when the database answers again."""


class Setback(DatabaseUnavailable):
    """The transaction was interrupted: the connection was lost, or the server ran out of a resource.

    The file may be the cause, but nothing proves it, so the file is never failed for this.
    """


class TransactionFailed(DatabaseUnavailable):
    """The transaction failed; asking the server again shows whether its files are the cause."""


class TryAgain(DatabaseUnavailable):
    """The transaction must be repeated: it lost a deadlock or a race."""


class LockTimeout(TryAgain):
    """Another transaction holds a lock, perhaps for a long time."""


class Contended(FileError):
    """Another transaction blocks the file: it is retried later, alone."""


class SourceUnavailable(Exception):
    """The place where files arrive does not answer: they stay; loading continues when it answers again."""


class Misconfigured(Exception):
    """A person must fix the settings or the database's permissions; nothing is touched until then."""


class Refused(Misconfigured):
    """The database does not accept a row, a reject or an entry of the ledger.

    If no file is the cause, a person must fix what was changed in the tables.
    """


class WorkerDied(Exception):
    """The process that was loading the batch ended, or failed with an unexpected error."""


class WorkerHung(WorkerDied):
    """The worker made no progress and was killed."""


class WorkerKilled(WorkerDied):
    """The worker was killed with SIGKILL by somebody else, not necessarily because of its files."""


class BatchLost(Exception):
    """The batch was not loaded, for a reason that has nothing to do with its files."""
