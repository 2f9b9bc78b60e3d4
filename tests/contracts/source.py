"""The contract of a source: tests that each implementation passes where it applies.

A test module subclasses SourceContract and says how to put a file into its source; pytest collects it there.
"""

import pickle
from typing import Any

import pytest

from processing.errors import Gone
from processing.source import Source

NAME = "vehicles_status_1.json"
CONTENT = b'{"vehicle_status": []}' * 10_000


class Kit:
    """A source with one file, and ways to look at both from outside."""

    source: Source[Any]

    def put(self, content: bytes, name: str = NAME) -> None:
        """Makes a file of that name arrive in the source."""
        raise NotImplementedError

    def left(self) -> dict[str, bytes]:
        """Returns all files that would be opened by their names."""
        raise NotImplementedError


class SourceContract:
    """Tests for every source; a subclass has a fixture `kit`."""

    def test_bytes_are_read_from_the_beginning_as_often_as_asked(self, kit: Kit) -> None:
        kit.put(CONTENT)
        with kit.source.open(NAME) as file:
            first, second = file.open_bytes(), file.open_bytes()
            assert first.read(100) == CONTENT[:100]
            assert second.read() == CONTENT
            file.digest()
            assert (first.read(), file.open_bytes().read()) == (CONTENT[100:], CONTENT)

    def test_a_file_has_the_name_it_was_opened_by_and_its_size(self, kit: Kit) -> None:
        kit.put(CONTENT)
        with kit.source.open(NAME) as file:
            assert (file.name, file.identity.size) == (NAME, len(CONTENT))

    def test_the_digest_is_there_once_asked_for_and_depends_on_every_byte(self, kit: Kit) -> None:
        digests = []
        for content in (CONTENT, CONTENT, CONTENT[:-1] + b" ", b""):
            kit.put(content)
            with kit.source.open(NAME) as file:
                assert file.sha256 == b""
                file.digest()
                digests.append(file.sha256)
        assert [len(digest) for digest in digests] == [32] * 4
        assert digests[0] == digests[1] and len(set(digests)) == 3

    def test_a_missing_name_is_gone(self, kit: Kit) -> None:
        with pytest.raises(Gone), kit.source.open("nothing.json"):
            pass

    def test_an_identity_stays_the_same_on_its_way_to_another_process(self, kit: Kit) -> None:
        kit.put(CONTENT)
        with kit.source.open(NAME) as file:
            first = pickle.loads(pickle.dumps(file.identity))
        with kit.source.open(NAME) as file:
            assert first == file.identity == file.identity_if_moved()
            assert first.same_content_as(file.identity)

    def test_an_identity_differs_for_other_bytes(self, kit: Kit) -> None:
        kit.put(CONTENT)
        with kit.source.open(NAME) as file:
            first = file.identity
        kit.put(CONTENT + b" ")
        with kit.source.open(NAME) as file:
            assert first != file.identity and not first.same_content_as(file.identity)

    def test_a_file_that_nobody_touches_is_unchanged(self, kit: Kit) -> None:
        kit.put(CONTENT)
        with kit.source.open(NAME) as file:
            file.check_unchanged()
            file.digest()
            file.check_unchanged()

    def test_reading_disposes_of_nothing(self, kit: Kit) -> None:
        kit.put(CONTENT)
        with kit.source.open(NAME) as file:
            file.digest()
        assert kit.source.tidy() is None
        kit.source.close()
        assert kit.left() == {NAME: CONTENT}

    def test_closing_twice_does_no_harm(self, kit: Kit) -> None:
        kit.source.close()
        kit.source.close()


class LeavingContract(SourceContract):
    """Further tests for a source that leaves all files as they are and where they are."""

    def test_it_disposes_of_nothing(self, kit: Kit) -> None:
        kit.put(CONTENT)
        with kit.source.open(NAME) as file:
            kit.source.complete(file)
            kit.source.quarantine(file, "it is bad")
        kit.source.quarantine_unopened(NAME, "it is bad")
        kit.source.close()
        assert kit.left() == {NAME: CONTENT}
