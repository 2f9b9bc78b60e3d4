"""The kinds of file that are known; a new one is a module like its siblings and a line here."""

from collections.abc import Mapping

from processing import detection_events, vehicle_status
from processing.records import Kind

#: Kinds by their names.
Kinds = Mapping[str, Kind]

KINDS: Kinds = {kind.name: kind for kind in (detection_events.KIND, vehicle_status.KIND)}


def kind_of_name(name: str, kinds: Kinds = KINDS) -> Kind | None:
    """The kind that a file's name promises, if any; the names of a bucket may be paths."""
    own = name.rpartition("/")[2]
    return next((kind for kind in kinds.values() if own.startswith(kind.prefix)), None)


def kind_of_key(key: str, kinds: Kinds = KINDS) -> Kind | None:
    """The kind whose array stands under this top-level key, if any."""
    return next((kind for kind in kinds.values() if key == kind.key), None)
