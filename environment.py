"""Reads the environment and a .env file; nothing else does."""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from dotenv.parser import Binding, parse_stream
from dotenv.variables import parse_variables

from processing.errors import Misconfigured

#: How other tools call the address of a database. Without one of ours they are taken for a mistake.
OTHERS_DATABASE = {
    *("DATABASE_URI", "DATABASE_DSN", "DATABASE_HOST", "DATABASE_NAME", "DB_URL", "DB_URI", "DB_DSN"),
    *("DB_USERNAME", "DB_PASS", "DB_DATABASE", "DB_HOSTNAME", "PG_URL", "PG_DSN"),
    *("POSTGRES_URL", "POSTGRES_URI", "POSTGRES_DSN", "POSTGRESQL_URL", "POSTGRESQL_URI"),
}

#: Names of other tools that only look like ours.
_FOREIGN = {"LOGLEVEL"}

#: What Kubernetes and Docker set for a service with the name "db": DB_PORT=tcp://10.0.0.7:5432
_SERVICE_LINK = re.compile(r"(?:tcp|udp|sctp)://")

#: What Kubernetes sets for a service with the name "kafka", and what starts a broker on this machine.
_KAFKA_OF_OTHERS = re.compile(r"KAFKA_(?:SERVICE_(?:HOST|PORT).*|PORT|PORT_\d+_.*|HOME|\w*OPTS)")

_SINGLE_QUOTED = re.compile(r"\s*(?:export[^\S\r\n]+)?(?:'[^']+'|[^=#\s]+)[^\S\r\n]*=[^\S\r\n]*'")


@dataclass(frozen=True)
class Found:
    """The values by name, without the empty ones; and the .env file that was read."""

    values: Mapping[str, str]
    env_file: Path | None


def read(names: Collection[str], database: Collection[str], folders: Collection[Path]) -> Found:
    """Returns the values of the environment and of the first .env file; the environment comes first.

    Names are in upper case. Raises Misconfigured for a .env file that can't be read, an empty name of the
    database, and a name that is nearly one of ours: a throwaway database must never get the files of another.
    """
    file = next((folder / ".env" for folder in folders if os.path.lexists(folder / ".env")), None)
    of_file = {name.upper(): value for name, value in _parse(file)} if file else {}
    of_system = {name.upper(): value for name, value in os.environ.items()}
    if _SERVICE_LINK.match(of_system.get("DB_PORT", "")):
        del of_system["DB_PORT"]
    places = [("the environment", of_system), (str(file), of_file)]
    values = {name: value for name, value in (of_file | _filled(of_system)).items() if value}
    flaws = [
        *_empty(database, places),
        *chain.from_iterable(_misspelled(names, database, values, place, found) for place, found in places),
    ]
    if flaws:
        raise Misconfigured("; ".join(flaws))
    return Found(values, file)


def _filled(found: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in found.items() if value}


def _empty(names: Collection[str], places: list[tuple[str, dict[str, str]]]) -> Iterator[str]:
    """Names the variables of the database without a value: most likely a secret is missing."""
    for name in names:
        place, value = next(((place, found[name]) for place, found in places if name in found), ("", "set"))
        if not value or (value.isspace() and name != "DB_PASSWORD"):
            yield f"{name} is empty in {place}: give it a value, or remove it"


def _misspelled(
    names: Collection[str],
    database: Collection[str],
    values: Mapping[str, str],
    place: str,
    found: Mapping[str, str],
) -> Iterator[str]:
    """Names what is nearly one of ours; not if that one is set, too: then it is another program's."""
    has_database = any(name in values for name in database)
    for name in sorted(found.keys() - set(names) - _FOREIGN):
        if name in OTHERS_DATABASE:
            if not has_database:
                yield f"{name} in {place} is no setting: use DATABASE_URL or the DB_… variables"
        elif meant := next((ours for ours in names if ours not in values and is_near(name, ours)), None):
            yield f"{name} in {place} is no setting: is {meant} meant?"


def is_near(name: str, ours: str) -> bool:
    """Returns whether a name is most likely a slip in one of ours.

    One edit is allowed, two where all words are long: ES_PASSWORD and DATABASE_SSL belong to other programs.
    A short name begins as ours does: PDB_NAME is no slip in DB_NAME.
    """
    limit = 2 if all(len(word) >= 5 for word in ours.split("_")) and len(ours) > 8 else 1
    if abs(len(name) - len(ours)) > limit or (len(ours) <= 8 and name[0] != ours[0]):
        return False
    return _edits(name, ours) <= limit


def _edits(one: str, other: str) -> int:
    """Counts the edits between two names: a letter more, less or another one, two neighbours swapped."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        before, last, row = row, before, [i]
        for j, wanted in enumerate(other, 1):
            fewest = min(before[j] + 1, row[-1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                fewest = min(fewest, last[j - 2] + 1)
            row.append(fewest)
    return row[-1]


def _parse(file: Path) -> Iterator[tuple[str, str]]:
    """Yields the names and values of a .env file; a name without "=" is empty."""
    try:
        with open(file, encoding="utf-8") as stream:
            bindings = list(parse_stream(stream))
    except UnicodeDecodeError:
        raise Misconfigured(f"can't read {file}: it is not UTF-8") from None
    except OSError as error:
        raise Misconfigured(f"can't read {file}: {error.strerror}") from None
    known: dict[str, str | None] = dict(os.environ)
    for binding in bindings:
        if binding.error:
            # Only the line: what stands there may be a part of a password.
            raise Misconfigured(f"can't read line {_line(binding)} of {file}: a quote or a name is wrong")
        if binding.key is not None:
            known[binding.key] = value = _expand(binding, known)
            yield binding.key, value


def _line(binding: Binding) -> int:
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _expand(binding: Binding, known: Mapping[str, str | None]) -> str:
    """Puts values in for ${NAME}, as a shell does: not in single quotes."""
    value = binding.value or ""
    if _SINGLE_QUOTED.match(binding.original.string):
        return value
    return "".join(atom.resolve(known) for atom in parse_variables(value))


def is_of_another_kafka(name: str, value: str) -> bool:
    """Returns whether a variable that begins with KAFKA_ is for others than the client."""
    return bool(_KAFKA_OF_OTHERS.fullmatch(name) or _SERVICE_LINK.match(value))


def notify_socket() -> str:
    """Returns where systemd wants to hear of a service of Type=notify; empty if it does not."""
    return os.environ.get("NOTIFY_SOCKET", "")


def forbids_colour() -> bool:
    """Returns whether a person wants no colour (no-color.org), or the terminal has none."""
    return bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in ("dumb", "unknown")


def forget_libpq_variables() -> None:
    """Removes PGHOSTADDR, PGSERVICE, PGTZ … from the environment of this process and of those that it starts.

    libpq takes each part that a connection string lacks from them; no string can keep all of them away.
    """
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
