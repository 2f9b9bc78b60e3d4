"""The main job: prepares folders and database, then lets the daemon load files until it is asked to stop."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import environment
import watcher.scan
from config import Address, LogFormat, LogLevel, Settings
from db.connection import Database
from db.embedded.account import user_name
from db.embedded.server import StartCancelled
from monitor.event_log import EventLog
from monitor.line_writer import terminal_of_errors
from monitor.log import Log, adopt_libraries, open_log
from processing.errors import DatabaseUnavailable, Misconfigured, SourceUnavailable
from service.build import make_daemon
from service.capacity import wanted_workers
from service.database import check_reachable, open_database, prepare_database, wait_for_place
from service.events import Ended, Event, Publish, Resource, Started, Stopped
from service.housekeeping import Housekeeping
from service.kept_client import KeptClient
from service.outage import TimedOut
from service.presence import Presence
from service.signals import StopSignal
from sources.claims import CLAIMS, FULL
from watcher.kind import ObserverKind

if TYPE_CHECKING:
    from monitor.terminal import Show, Terminal

#: The errors that end a job, and that a person can do something about.
ENDINGS = (Misconfigured, DatabaseUnavailable, SourceUnavailable, TimedOut, OSError)


def run(settings: Settings, *, once: bool, accepts_new: bool = False, plain: bool = False) -> int:
    """Prepares the folders and the database, loads, and returns the exit code.

    With accepts_new into another database than the folder's files went into before; with plain only lines
    are written, on a terminal, too.
    """
    job = partial(_run, settings, once=once, accepts_new=accepts_new)
    ask = partial(check_reachable, settings)
    return show_job(settings, job, ask, Resource.DATABASE, once=once, plain=plain)


def show_job(
    settings: Settings,
    job: Callable[[Publish], int],
    ask: Callable[[], None],
    destination: Resource,
    *,
    once: bool,
    plain: bool,
) -> int:
    """Shows what a job publishes, and returns its exit code; ask() asks its destination if it takes rows."""
    make_show = partial(_show_files, destination=destination)
    with shown_events(settings, plain=plain, make_show=make_show) as shown:
        try:
            # What runs once ends before anybody asks, and may run beside a daemon with the same settings.
            address = None if once else settings.metrics_address
            with _exposed(settings, address, _announced(shown.write), ask, destination) as publish:
                return job(publish)
        except ENDINGS as error:
            return end(settings, shown, error)


def end(settings: Settings, shown: "EventLog | Terminal", error: Exception) -> int:
    """Writes the line of an error that ends a job, and returns the exit code."""
    # Before the first line, a person at a terminal gets the plain sentence that other commands print.
    if settings.log_format is LogFormat.TEXT and not shown.has_written:
        raise error
    code = 2 if isinstance(error, Misconfigured) else 1
    shown.write(Ended(str(error), code))
    return code


def _announced(publish: Publish) -> Publish:
    """Returns a function that publishes to systemd, too, if that wants to hear."""
    address = environment.notify_socket()
    if not address:
        return publish
    from monitor.systemd import ServiceManager  # only a service needs it

    return to_both(publish, ServiceManager(address).note)


def to_both(publish: Publish, note: Publish) -> Publish:
    """Returns a function that publishes to two subscribers."""

    def publish_to_both(event: Event) -> None:
        publish(event)
        note(event)

    return publish_to_both


@contextmanager
def _exposed(
    settings: Settings,
    address: Address | None,
    publish: Publish,
    ask: Callable[[], None],
    destination: Resource,
) -> Iterator[Publish]:
    """Serves metrics and health at the address, if there is one; yields the function to publish with."""
    if address is None:
        yield publish
        return
    from monitor.exposure import expose  # with libraries that only this needs

    with expose(settings, address, publish, ask, destination) as publish_to_all:
        yield publish_to_all


def _show_files(level: LogLevel, destination: Resource) -> "Show":
    from monitor.files_show import FilesShow

    return FilesShow(level, destination)


@contextmanager
def shown_events(
    settings: Settings,
    *,
    plain: bool,
    make_show: "Callable[[LogLevel], Show]",
    make_log: Callable[[Log], EventLog] = EventLog,
) -> "Iterator[EventLog | Terminal]":
    """Yields what shows the events: on a terminal a live view, unless lines are asked for."""
    with ExitStack() as stack:
        log = stack.enter_context(open_log(settings.log_format, settings.log_level))
        event_log = make_log(log)
        is_asked_for_lines = plain or "log_format" in settings.model_fields_set
        if not is_asked_for_lines and (fd := terminal_of_errors()) is not None:
            # Here, because only a terminal needs it: what draws takes a tenth of a second to import.
            from monitor.terminal import open_terminal

            show = make_show(settings.log_level)
            terminal = stack.enter_context(open_terminal(fd, event_log, show))
            if terminal is not None:
                adopt_libraries(terminal.warning)
                yield terminal
                return
        adopt_libraries(log.warning)
        yield event_log


def _run(settings: Settings, publish: Publish, *, once: bool, accepts_new: bool) -> int:
    stop = StopSignal()
    totals: Counter[str] = Counter()
    with stop.on_signals(), closing(KeptClient(settings.s3_endpoint_url)) as client:
        presence = prepare_place(settings)
        with suppress(StartCancelled):
            wait_for_place(settings, client, publish, stop, once=once)
            opened = open_database(
                settings, stop.event.is_set, publish, stop.ask, may_create=True, accepts_new=accepts_new
            )
            with opened as ensure_running:
                prepared = prepare_database(
                    settings, ensure_running, client, publish, stop, once=once, accepts_new=accepts_new
                )
                if prepared is not None:
                    totals = _load(*prepared, ensure_running, client, publish, stop, presence, once=once)
        if "waiting" not in totals:  # it was stopped before it could load anything
            totals["waiting"] = waiting_files(settings)
        publish(Stopped(totals))
    return 1 if once and (totals["failed"] or totals["waiting"] or stop.event.is_set()) else 0


def _load(
    database: Database,
    settings: Settings,
    ensure_running: Callable[[], Database],
    client: KeptClient,
    publish: Publish,
    stop: StopSignal,
    presence: Presence | None,
    *,
    once: bool,
) -> Counter[str]:
    publish(_started(settings))
    with Housekeeping(ensure_running, publish, retention_days=settings.retention_days):
        daemon = make_daemon(
            settings, database, ensure_running, client, publish, stop, once=once, presence=presence
        )
        return daemon.run()


def prepare_place(settings: Settings) -> Presence | None:
    """Makes what is missing where files arrive; shows that a daemon watches a folder."""
    if settings.bucket is not None:
        return None
    prepare_folders(settings)
    # From here on, so that status sees it, too, while the database is waited for.
    presence = Presence(str(settings.folder))
    presence.hold()
    return presence


def waiting_files(settings: Settings) -> int:
    """Returns how many files wait in the folder, if it can be listed."""
    with suppress(OSError):
        if settings.bucket is None:
            return len(watcher.scan.waiting(str(settings.folder)))
    return 0


def _started(settings: Settings) -> Started:
    outside = settings.outside_database
    embedded_in = str(settings.data_folder) if outside is None else None
    env_file = str(settings.env_file) if settings.env_file else None
    workers = wanted_workers(settings)
    observer = settings.observer if settings.bucket is None else ObserverKind.OFF
    return Started(str(settings.watch_folder), observer, workers, env_file, embedded_in, outside)


def prepare_folders(settings: Settings) -> None:
    """Makes the folders; raises Misconfigured if files could not be moved between them."""
    folders = [folder for folder in (settings.folder, settings.failed, settings.archive) if folder]
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if folder == settings.failed and error.errno in FULL:
                continue  # it is made for the first file that fails; until then others can make room
            raise Misconfigured(f"can't make the folder {folder}: {error.strerror}") from None
        _check_folder(folder, settings.folder)
    claims = settings.folder / CLAIMS
    if os.path.lexists(claims):
        _check_folder(claims, settings.folder)


def _check_folder(folder: Path, watched: Path) -> None:
    if not folder.is_dir():
        raise Misconfigured(f"{folder} has to be a folder")
    status = folder.stat()
    if not os.access(folder, os.W_OK | os.X_OK | os.R_OK):
        whose = f"it is of the user {user_name(status.st_uid)}"
        raise Misconfigured(f"can't read and write the folder {folder}: {whose}")
    if status.st_dev != watched.stat().st_dev:
        raise Misconfigured(f"{folder} has to be on the same file system as {watched}")
