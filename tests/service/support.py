"""What the tests of the service share: subscribers of its events."""

from config import LogFormat
from monitor.event_log import EventLog
from monitor.log import make_log
from service.events import Publish


def to_log() -> Publish:
    """Writes events to standard error, as the program does."""
    return EventLog(make_log(LogFormat.TEXT)).write
