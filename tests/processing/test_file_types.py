"""The kinds of file, by name and by key."""

import pytest

from processing.file_types import KINDS, kind_of_key, kind_of_name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("objects_detection_1.json", "objects_detection"),
        ("vehicles_status_2022-05-05.json.gz", "vehicles_status"),
        ("vehicle_status_1.json", None),
        ("Vehicles_status_1.json", None),
        ("x_vehicles_status_1.json", None),
        ("", None),
    ],
)
def test_a_name_promises_a_kind_or_none(name: str, kind: str | None) -> None:
    found = kind_of_name(name)
    assert (found and found.name) == kind


def test_each_kind_is_found_by_its_key_and_its_name_alone() -> None:
    for kind in KINDS.values():
        assert kind_of_key(kind.key) is kind
        assert kind_of_name(f"{kind.prefix}1.json") is kind
        assert kind_of_key(f"{kind.key}.item") is None
