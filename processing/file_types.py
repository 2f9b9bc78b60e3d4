"""The kinds of file that are known; a new one is a module like its siblings and a line here."""

from processing import detection_events, vehicle_status
from processing.records import Kind

#: The kinds by their names.
KINDS: dict[str, Kind] = {kind.name: kind for kind in (detection_events.KIND, vehicle_status.KIND)}


def kind_of_name(name: str) -> Kind | None:
    """The kind that a file's name promises, if any."""
    return next((kind for kind in KINDS.values() if name.startswith(kind.prefix)), None)


def kind_of_key(key: str) -> Kind | None:
    """The kind whose array stands under this top-level key, if any."""
    return next((kind for kind in KINDS.values() if key == kind.key), None)
