"""The legs of the proving machine: what each does, how much of it a full run asks for, and in what time."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.scenarios import (
    documents,
    folder,
    model,
    network,
    parser,
    processes,
    server,
    soak,
    syscalls,
    watching,
)
from tests.chaos.rig import Finding, Trial

#: What a full run takes; volumes are for that, and less in proportion for less.
FULL_MINUTES = 60.0


@dataclass(frozen=True)
class Leg:
    """volume: of a full run, 0: all there is; minutes: after which a full run of it is given up."""

    name: str
    run: Callable[[Trial], Finding]
    volume: int
    unit: str
    target: str
    minutes: float
    naive: bool = True


LEGS = (
    Leg("kill-points", syscalls.kill_points, 0, "points", "0 lost, doubled, torn", 20, naive=False),
    Leg("kill-pairs", syscalls.kill_pairs, 500, "pairs", "0 lost, doubled, torn", 20, naive=False),
    Leg("replay-points", syscalls.replay_points, 0, "points", "0 lost, doubled, torn", 30, naive=False),
    Leg("kills", processes.kills, 2000, "kills", "0; first commit p99 < 3 s", 60),
    Leg("stops", processes.stops, 300, "stops", "0; exit p99 < 5 s", 20),
    Leg("messages", network.messages, 0, "messages", "0 at every boundary", 30, naive=False),
    Leg("silence", network.silence, 6, "silences", "0; noticed within 130 s", 30, naive=False),
    Leg("dead-links", network.dead_links, 10, "links", "0; noticed within 12 s, free in 17", 30, naive=False),
    Leg("restarts", server.restarts, 100, "restarts", "0; resumes within 10 s", 10),
    Leg("sqlstates", server.codes, 80, "faults", "0 good files failed; resumes within 10 s", 10, naive=False),
    Leg("hostile-folder", folder.hostile, 0, "guests", "no hang over 1 s, target untouched", 10),
    Leg("races", folder.races, 2000, "races", "0 torn, 0 wrong deletes", 20),
    Leg("bombs", parser.bombs, 0, "bombs", "verdict < 10 s, < 300 MB, no crash", 10),
    Leg("overflow", watching.overflow, 50_000, "files", "all within a rescan and work time", 10, naive=False),
    Leg("sabotage", watching.sabotage, 70, "harms", "0; loaded within one rescan", 10, naive=False),
    Leg("failing-calls", syscalls.failing_calls, 0, "points", "0 lost, doubled, torn", 60, naive=False),
    Leg(
        "documents", documents.random_documents, 50_000, "documents", "all as the reference", 15, naive=False
    ),
    Leg("model", model.model, 300, "runs", "the promise holds at every rest", 30, naive=False),
    Leg("soak", soak.soak, 30, "minutes", "0; memory <= 2 MB/h, descriptors constant", 40, naive=False),
)
