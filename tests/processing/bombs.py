"""Documents that would take a careless parser's memory or life; as a program, what they do to ours."""

import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import repeat

from processing.errors import BadFile
from tests.processing.support import own_peak, read_opened

CHUNK = 64 * 1024


class Generated:
    """A text that nobody holds in memory."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = filter(None, chunks)

    def read(self, size: int = -1, /) -> bytes:
        return next(self._chunks, b"")


def within(before: bytes, filling: bytes, size: int, after: bytes) -> Iterator[bytes]:
    """Between two texts at least this many bytes of another."""
    yield before
    yield from repeat(filling * (CHUNK // len(filling)), size // CHUNK + 1)
    yield after


def keys(count: int) -> Iterator[bytes]:
    """This many different keys, with their values, and a comma after each."""
    for start in range(0, count, 5_000):
        yield "".join([f'"k{number}":1,' for number in range(start, start + 5_000)]).encode()


def many_keys(before: bytes, after: bytes) -> Iterator[bytes]:
    yield before
    yield from keys(10_000_000)
    yield after


REPORT = b'{"vehicle_id":"a","report_time":"2022-05-05T22:02:34Z","status":"driving"'
IN_LIST, AFTER_LIST = b'{"vehicle_status":[', b'{"vehicle_status":[]'
IN_FIELD = IN_LIST + REPORT + b',"x":'
MEGABYTES = 1024 * 1024

BOMBS: dict[str, Callable[[], Iterable[bytes]]] = {
    "20,000 levels": lambda: [b"[" * 20_000],
    "20,000 levels in the list": lambda: [IN_LIST + b"[" * 20_000],
    "100,000 levels in the list": lambda: within(IN_LIST, b"[", 100_000, b""),
    "100,000 levels in a field": lambda: within(IN_FIELD, b'{"":', 400_000, b""),
    "100,000 levels after the list": lambda: within(AFTER_LIST + b',"x":', b"[", 100_000, b""),
    "100,000 levels in a later chunk": lambda: [AFTER_LIST, b',"x":', b"[" * CHUNK, b"[" * CHUNK],
    "200 MB of text": lambda: within(b'"', b"x", 200 * MEGABYTES, b'"'),
    "200 MB of text in the list": lambda: within(IN_LIST + b'"', b"x", 200 * MEGABYTES, b'"]}'),
    "200 MB of text in a field": lambda: within(IN_FIELD + b'"', b"x", 200 * MEGABYTES, b'"}]}'),
    "200 MB of escapes in a field": lambda: within(IN_FIELD + b'"', rb"\"", 200 * MEGABYTES, b'"}]}'),
    "200 MB of text after the list": lambda: within(AFTER_LIST + b',"x":"', b"x", 200 * MEGABYTES, b'"}'),
    "a key of 200 MB": lambda: within(b'{"', b"x", 200 * MEGABYTES, b'":[]}'),
    "200 MB of blanks": lambda: within(b"", b" ", 200 * MEGABYTES, b"{}"),
    "200 MB of blanks before the key": lambda: within(b"{", b" ", 200 * MEGABYTES, IN_LIST[1:] + b"]}"),
    "200 MB of blanks in the list": lambda: within(IN_LIST, b" ", 200 * MEGABYTES, b"]}"),
    "200 MB of blanks in an element": lambda: within(
        IN_LIST + REPORT + b"},{", b" ", 200 * MEGABYTES, REPORT[1:] + b"}]}"
    ),
    "200 MB of commas in an element": lambda: within(IN_LIST + b"[", b",", 200 * MEGABYTES, b"]]}"),
    "200 MB of numbers in an element": lambda: within(IN_LIST + b"[1", b",1", 200 * MEGABYTES, b"]]}"),
    "10 M keys in the document": lambda: many_keys(b'{"vehicle_status":1,', b'"":1}'),
    "10 M keys in an element": lambda: many_keys(IN_LIST + b"{", b'"":1}]}'),
    "10 M keys after the list": lambda: many_keys(AFTER_LIST + b",", b'"":1}'),
    "131,073 digits": lambda: [IN_FIELD + b"1" * 131_073 + b"}]}"],
    "1 M digits": lambda: within(IN_FIELD, b"1", MEGABYTES, b"}]}"),
    "1 M digits as the head": lambda: within(b"", b"1", MEGABYTES, b""),
    "1 M digits after the list": lambda: within(AFTER_LIST + b',"x":', b"1", MEGABYTES, b"}"),
    "an exponent of 1 M digits": lambda: within(IN_FIELD + b"1e", b"1", MEGABYTES, b"}]}"),
    "an exponent of 20 digits": lambda: [IN_FIELD + b"1e99999999999999999999}]}"],
    "an exponent of -20 digits": lambda: [IN_FIELD + b'9223372036854775808,"y":1e-99999999999999999999}]}'],
}


def main() -> None:
    verdict = "accepted"
    try:
        reading = read_opened(lambda: Generated(BOMBS[sys.argv[1]]()))
        for reject in reading.rejected:
            verdict = reject.detail
    except BadFile as error:
        verdict = str(error)
    sys.stdout.write(f"{verdict}\n{own_peak()}\n")


if __name__ == "__main__":
    main()
