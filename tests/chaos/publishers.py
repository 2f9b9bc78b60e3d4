"""A publisher of files whose records can be identified, and the oracle of what readers see of them."""

import json
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from threading import Event
from typing import Any

import psutil

from tests.chaos.fleets import TRACEBACK
from tests.chaos.oracle import leaks
from tests.chaos.producers import CANARY, DETECTIONS, LARGEST, STATUSES, Dropped, Journal
from tests.chaos.rig import Trial
from tests.kafka import Broker
from tests.publish.publisher import PublisherDaemon
from tests.support import frozen, until
from tests.topics import read_topic

#: The broker aborts the transaction of a publisher that is silent for longer.
TRANSACTION_SECONDS = 5

#: Files that may wait; more would only cost time.
_MOST_WAITING = 60

#: The shares of files that have bad records, that come twice, and that are broken.
_FLAWED, _REPEATED, _BROKEN = 0.1, 0.05, 0.01

#: The share of files that are too large for one transaction, and their rows.
_IN_PARTS, _ROWS_IN_PARTS = 0.005, 2 * LARGEST

#: A broker that was asked to end a transaction has done so after this time.
_MARKER_SECONDS = 2.0

_TOPICS = {DETECTIONS: "objects_detection_events", STATUSES: "vehicle_status"}


class PublisherFleet:
    """A publisher in a folder, and others that may take its place with the same transactional id."""

    def __init__(self, trial: Trial, broker: Broker, prefix: str, *, has_flaws: bool = True) -> None:
        """Starts nothing."""
        self.broker = broker
        self.prefix = prefix
        self.journal = Journal()
        self.contents: dict[str, bytes] = {}
        self.flawed: Counter[tuple[str, int]] = Counter()  # digest and number of a bad record
        self.broken: dict[str, str] = {}
        self.complaints: list[str] = []
        self.pause = 0.02
        self._has_flaws = has_flaws
        self._rng = random.Random(trial.seed)
        self._folder = trial.folder
        self._began = self._read = 0  # how much of the log is of earlier runs, and of earlier workers
        self.all: list[PublisherDaemon] = []
        self.publisher = self._make()
        self.publisher.incoming.mkdir(parents=True)

    # Harms --------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._began = self._read = len(self.publisher.log())
        self.publisher.start(wait=False)

    def publishes(self) -> bool:
        """Waits until the publisher has the transactional id; returns whether it has it in time."""
        self.revive()
        with suppress(AssertionError):
            until(lambda: " loaded " in self.publisher.log()[self._read :], 90)
            return True
        return False

    def revive(self) -> None:
        """Starts the publisher if it has ended; nobody but the runner may have ended it."""
        process = self.publisher.process
        if process is not None and process.poll() is not None:
            log = self.publisher.log()[-600:]
            self.complaints.append(f"it ended with {process.returncode}: {log}")
        if process is None or process.poll() is not None:
            self.start()

    def kill(self) -> None:
        """Kills the publisher with its worker."""
        process, self.publisher.process = self.publisher.process, None
        if process is not None and process.poll() is None:
            workers = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait(20)
            psutil.wait_procs(workers, 20)

    def kill_worker(self) -> None:
        with suppress(psutil.Error):
            workers = self.publisher.workers()
            for worker in workers:
                worker.kill()
            psutil.wait_procs(workers, 20)
        self._read = len(self.publisher.log())

    def freeze(self, seconds: float) -> None:
        """Stops the publisher, as if its machine stood still."""
        with frozen(self.publisher.pid):
            time.sleep(seconds)

    @contextmanager
    def undecided(self) -> Iterator[None]:
        """Freezes the publisher when the broker has ended what it was asked to end.

        A broker that is killed just then forgets it: see "A transaction that never ends" in docs/kafka.md.
        """
        self.revive()
        with frozen(self.publisher.pid):
            with suppress(AssertionError):  # a transaction is open, and nobody ends it
                until(lambda: not self.publisher.is_blocked(), _MARKER_SECONDS)
            yield

    def replace(self, seconds: float) -> None:
        """Freezes the publisher while another one takes over, with its id and its folder: the older ends."""
        if not self.publishes():
            return
        older = self.publisher
        with frozen(older.pid):
            self.publisher = self._make()
            self.start()
            time.sleep(seconds)
        if (code := self._end_of(older)) != 2:
            self.complaints.append(f"the older of two ended with {code}: {older.log()[-1000:]}")
        older.process = None

    def stop(self) -> None:
        """Stops the publisher as a service would."""
        with suppress(AssertionError):
            until(lambda: " watching " in self.publisher.log()[self._began :], 60)
        if code := self.publisher.stop(self._rng.choice((signal.SIGINT, signal.SIGTERM))):
            self.complaints.append(f"asked to end, it ended with {code}: {self.publisher.log()[-600:]}")

    def close(self) -> None:
        for publisher in self.all:
            if publisher.process is not None:
                with suppress(psutil.Error):
                    psutil.Process(publisher.pid).resume()
                publisher.process.kill()
                publisher.process.wait(20)

    def _end_of(self, older: PublisherDaemon) -> int | None:
        """Returns the exit code of a publisher that has to end at its next file; drops files until then."""
        assert older.process is not None
        deadline = time.monotonic() + 90
        while older.process.poll() is None and time.monotonic() < deadline:
            self._drop_any()
            time.sleep(0.2)
        return older.process.poll()

    def _make(self) -> PublisherDaemon:
        publisher = PublisherDaemon(self._folder / f"publisher{len(self.all)}", self.broker, self.prefix)
        first = self.all[0] if self.all else publisher
        publisher.set(
            DATA_FOLDER=first.folder / "data",
            WATCH_FOLDER=first.incoming,
            KAFKA_TRANSACTION_TIMEOUT_MS=1000 * TRANSACTION_SECONDS,
        )
        publisher.incoming, publisher.failed = first.incoming, first.failed
        self.all.append(publisher)
        return publisher

    # Files --------------------------------------------------------------------------------------------

    def drop_on(self, stop: Event) -> None:
        """Drops one file after the other until it is told to stop; pauses while many wait."""
        while not stop.wait(self.pause):
            if len(self.publisher.left()) < _MOST_WAITING:
                self._drop_any()

    def drain(self, seconds: float = 300) -> None:
        """Waits until the folder is empty."""
        self.revive()
        with suppress(AssertionError):
            self.publisher.until_empty(seconds)

    def _drop_any(self) -> None:
        rows = _ROWS_IN_PARTS if self._rng.random() < _IN_PARTS else 0
        file = self.journal.draw(self._rng, rows)
        content, chance = file.content(), self._rng.random()
        self.journal.add(file)
        if self._has_flaws and chance < _FLAWED:
            flaws = range(self._rng.randint(1, 3))
            content = content[:-2] + b"".join(map(_flaw, flaws)) + b"]}"
            self.flawed.update((_digest(content), number) for number in flaws)
        self._drop(file.name, content)
        if self._rng.random() < _REPEATED:
            self.publisher.drop(f"again_{file.name}", content)
        if self._has_flaws and self._rng.random() < _BROKEN:
            name = f"{STATUSES}_broken{len(self.broken)}.json"
            self.broken[name] = _digest(broken := b'{"vehicle_status":[%d}' % len(self.broken))
            self.publisher.drop(name, broken)

    def _drop(self, name: str, content: bytes) -> None:
        self.contents[_digest(content)] = content
        self.publisher.drop(name, content)

    # The oracle ---------------------------------------------------------------------------------------

    def judge(self, secret: str = "") -> Counter[str]:
        """Compares what a reader of committed messages sees with what was dropped."""
        counts: Counter[str] = Counter()
        for kind, topic in _TOPICS.items():
            files = {vehicle: file for vehicle, file in self.journal.files.items() if file.kind == kind}
            self._judge_topic(topic, files, counts)
        self._judge_rejects(counts)
        self._judge_ledger(counts)
        left = self.publisher.left()
        counts["left"] = len(left)
        failed = {path.name for path in self.publisher.failed.glob("*.json")}
        counts["good failed"] = len(failed - self.broken.keys())
        if failed != self.broken.keys():
            self.complaints.append(f"failed/ has {sorted(failed)}, broken were {sorted(self.broken)}")
        self._look_at_logs(secret, counts)
        return counts

    def _judge_topic(self, topic: str, files: dict[str, Dropped], counts: Counter[str]) -> None:
        found: dict[str, list[str]] = defaultdict(list)
        for message in read_topic(self.broker, f"{self.prefix}.{topic}"):
            found[message.key].append(_canonical(message.value))
        for vehicle, values in found.items():
            if vehicle not in files:
                counts["phantom"] += len(values)
        for vehicle, file in files.items():
            (elements,) = json.loads(file.content()).values()
            wanted = [_canonical(element) for element in elements]
            if found[vehicle] == wanted:
                counts["rows"] += file.rows
                continue
            there, due = Counter(found[vehicle]), Counter(wanted)
            counts["lost"] += (due - there).total()
            counts["doubled"] += sum((there - due)[value] for value in due)
            counts["phantom"] += sum(count for value, count in there.items() if value not in due)
            self.complaints.append(f"{file.name} is not as it was: {len(found[vehicle])} of {len(wanted)}")

    def _judge_rejects(self, counts: Counter[str]) -> None:
        found = Counter(
            (message.value["sha256"], message.value["original"]["flaw"])
            for message in read_topic(self.broker, f"{self.prefix}.rejects")
        )
        counts["lost"] += (self.flawed - found).total()
        counts["doubled"] += (found - self.flawed).total()

    def _judge_ledger(self, counts: Counter[str]) -> None:
        """Compares the ledger: each file is there, with the counts of its records."""
        entries: dict[str, dict[str, Any]] = {}
        for message in read_topic(self.broker, f"{self.prefix}.ledger"):
            if len(message.key) == 64:
                entries[message.key] = message.value
        rejected = Counter(digest for digest, _ in self.flawed)
        wanted = {digest: _entry_of(content, rejected[digest]) for digest, content in self.contents.items()}
        wanted |= dict.fromkeys(self.broken.values(), ("failed", 0, 0))
        stands = {
            digest: (entry["state"], entry.get("published", 0), entry.get("rejected", 0))
            for digest, entry in entries.items()
        }
        counts["ledger"] += len(wanted.items() ^ stands.items())
        counts["ledger"] += sum(
            entry.get("read", 0) != entry.get("published", 0) + entry.get("rejected", 0)
            for entry in entries.values()
        )

    def _look_at_logs(self, secret: str, counts: Counter[str]) -> None:
        logs = [publisher.log() for publisher in self.all]
        leaking = leaks([line for log in logs for line in log.splitlines()], [secret] if secret else [])
        counts["leaks"] = len(leaking)
        self.complaints += [f"the log leaks: {line[:300]}" for line in leaking[:3]]
        traces = [trace[:1500] for log in logs for trace in log.split(TRACEBACK)[1:]]
        # A worker that is being started complains if its daemon is killed.
        self.complaints += [trace for trace in traces if "in spawn_main" not in trace]


def _flaw(number: int) -> bytes:
    return b',{"vehicle_id":"%b","flaw":%d}' % (CANARY.encode(), number)


def _entry_of(content: bytes, rejected: int) -> tuple[str, int, int]:
    """Returns the state of a file in the ledger, and how many of its records are published and rejected."""
    (elements,) = json.loads(content).values()
    return "published", sum(len(element.get("detections", "1")) for element in elements) - rejected, rejected


def _digest(content: bytes) -> str:
    return sha256(content).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
