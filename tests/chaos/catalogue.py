"""Lists the scenarios: what each runs, its volume in a full run, its target and its time limit."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.rig import Finding, Trial
from tests.chaos.scenarios import (
    buckets,
    documents,
    folder,
    model,
    network,
    parser,
    processes,
    server,
    soak,
    streams,
    syscalls,
    watching,
)

#: Length of a full run. The volumes are for it; a shorter run does proportionally less.
FULL_MINUTES = 60.0


@dataclass(frozen=True)
class Scenario:
    """A way to harm the daemon.

    `volume` is that of a full run, 0 for everything there is; after `minutes` a full run is given up.
    """

    name: str
    run: Callable[[Trial], Finding]
    volume: int
    unit: str
    target: str
    minutes: float
    naive: bool = True


SCENARIOS = (
    Scenario("kill-points", syscalls.kill_points, 0, "points", "0 lost, doubled, torn", 20, naive=False),
    Scenario("kill-pairs", syscalls.kill_pairs, 500, "pairs", "0 lost, doubled, torn", 20, naive=False),
    Scenario("replay-points", syscalls.replay_points, 0, "points", "0 lost, doubled, torn", 30, naive=False),
    Scenario("recall-points", syscalls.recall_points, 0, "points", "0 lost, doubled, torn", 60, naive=False),
    Scenario("bucket-points", syscalls.bucket_points, 0, "points", "0 lost, doubled, torn", 10, naive=False),
    Scenario("bucket-pairs", syscalls.bucket_pairs, 100, "pairs", "0 lost, doubled, torn", 30, naive=False),
    Scenario("bucket-requests", buckets.requests, 4_000, "objects", "0", 15, naive=False),
    Scenario("bucket-daemons", buckets.daemons, 20, "harms", "0; taken over within 40 s", 30, naive=False),
    Scenario("consume-points", syscalls.consume_points, 0, "points", "0 lost, doubled", 20, naive=False),
    Scenario("publish-points", syscalls.publish_points, 0, "points", "0 lost, doubled", 20, naive=False),
    Scenario("stream-consumers", streams.consumers, 200, "harms", "0; taken over in 30 s", 60, naive=False),
    Scenario("stream-storm", streams.storm, 120, "joins and leaves", "0; it goes on", 20, naive=False),
    Scenario("stream-publishers", streams.publishers, 100, "harms", "0", 60, naive=False),
    Scenario("stream-chain", streams.chain, 60, "harms", "0; taken over in 30 s", 60, naive=False),
    Scenario("kills", processes.kills, 2000, "kills", "0; first commit p99 < 3 s", 60),
    Scenario("stops", processes.stops, 300, "stops", "0; exit p99 < 5 s", 20),
    Scenario("messages", network.messages, 0, "messages", "0 at every boundary", 30, naive=False),
    Scenario("silence", network.silence, 6, "silences", "0; noticed within 130 s", 30, naive=False),
    Scenario(
        "dead-links", network.dead_links, 10, "links", "0; noticed within 12 s, free in 17", 30, naive=False
    ),
    Scenario("restarts", server.restarts, 100, "restarts", "0; resumes within 10 s", 10),
    Scenario(
        "sqlstates", server.codes, 80, "faults", "0 good files failed; resumes within 10 s", 10, naive=False
    ),
    Scenario("hostile-folder", folder.hostile, 0, "entries", "no hang over 1 s, target untouched", 10),
    Scenario("races", folder.races, 2000, "races", "0 torn, 0 wrong deletes", 20),
    Scenario("bombs", parser.bombs, 0, "bombs", "verdict < 10 s, < 300 MB, no crash", 10),
    Scenario(
        "overflow", watching.overflow, 50_000, "files", "all within a rescan and work time", 10, naive=False
    ),
    Scenario("sabotage", watching.sabotage, 70, "harms", "0; loaded within one rescan", 10, naive=False),
    Scenario("failing-calls", syscalls.failing_calls, 0, "points", "0 lost, doubled, torn", 60, naive=False),
    Scenario(
        "documents", documents.random_documents, 50_000, "documents", "equals the reference", 15, naive=False
    ),
    Scenario("model", model.model, 300, "runs", "the promise holds at every rest", 30, naive=False),
    Scenario("soak", soak.soak, 30, "minutes", "0; memory <= 2 MB/h, descriptors constant", 40, naive=False),
)
