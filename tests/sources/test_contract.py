"""The contract of a source, kept by the folder, by the folder that is only looked at, and by memory."""

from pathlib import Path

import pytest

from processing.errors import NotReady
from sources.folder import FolderSource
from sources.memory import MemorySource
from sources.peek import PeekSource
from sources.policy import OnLoaded
from tests.contracts.source import CONTENT, NAME, Kit, LeavingContract, SourceContract


class FolderKit(Kit):
    def __init__(self, folder: Path) -> None:
        self.incoming, self.failed = folder / "incoming", folder / "failed"
        self.incoming.mkdir()
        self.source = FolderSource(str(self.incoming), str(self.failed), "", OnLoaded.DELETE)

    def put(self, content: bytes, name: str = NAME) -> None:
        (self.incoming / name).write_bytes(content)

    def left(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.incoming.iterdir() if path.is_file()}


class PeekKit(FolderKit):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.source = PeekSource(str(self.incoming))


class MemoryKit(Kit):
    def __init__(self) -> None:
        self._texts: dict[str, bytes] = {}
        self.source = self.memory = MemorySource(self._texts.get)

    def put(self, content: bytes, name: str = NAME) -> None:
        self._texts[name] = content

    def left(self) -> dict[str, bytes]:
        return self._texts


class TestFolder(SourceContract):
    @pytest.fixture
    def kit(self, tmp_path: Path) -> FolderKit:
        return FolderKit(tmp_path)

    def test_a_complete_file_is_removed_and_no_other(self, kit: FolderKit) -> None:
        kit.put(CONTENT)
        kit.put(CONTENT, "other.json")
        with kit.source.open(NAME) as file:
            kit.source.complete(file)
        assert kit.left() == {"other.json": CONTENT}

    def test_only_what_was_read_is_removed(self, kit: FolderKit) -> None:
        kit.put(b"old")
        with kit.source.open(NAME) as file:
            (kit.incoming / NAME).unlink()
            kit.put(b"new")
            with pytest.raises(NotReady):
                kit.source.complete(file)
            with pytest.raises(NotReady):
                kit.source.quarantine(file, "it is bad")
        assert kit.left() == {NAME: b"new"} and not kit.failed.exists()

    def test_a_change_after_opening_is_noticed(self, kit: FolderKit) -> None:
        kit.put(CONTENT)
        with kit.source.open(NAME) as file:
            kit.put(CONTENT + b" ")
            with pytest.raises(NotReady, match="it changed while it was read"):
                file.check_unchanged()

    def test_quarantine_keeps_the_bytes_and_the_reason(self, kit: FolderKit) -> None:
        kit.put(CONTENT)
        with kit.source.open(NAME) as file:
            target = Path(kit.source.quarantine(file, "it is bad"))
        assert kit.left() == {} and target == kit.failed / NAME
        assert target.read_bytes() == CONTENT
        assert Path(f"{target}.reason.txt").read_text() == "it is bad\n"


class TestPeek(LeavingContract):
    @pytest.fixture
    def kit(self, tmp_path: Path) -> PeekKit:
        return PeekKit(tmp_path)


class TestMemory(LeavingContract):
    @pytest.fixture
    def kit(self) -> MemoryKit:
        return MemoryKit()

    def test_disposals_are_noted(self, kit: MemoryKit) -> None:
        kit.put(CONTENT)
        with kit.source.open(NAME) as file:
            kit.source.complete(file)
            kit.source.quarantine(file, "it is bad")
        kit.source.quarantine_unopened("other.json", "it is worse")
        assert kit.memory.completed == [NAME]
        assert kit.memory.quarantined == {NAME: "it is bad", "other.json": "it is worse"}
