"""The program as its user meets it: started in a terminal, fed with files, stopped."""

from tests.support import Daemon, detections, event, report, statuses


def test_the_two_example_files_become_rows_and_disappear(daemon: Daemon) -> None:
    daemon.start()
    daemon.drop("objects_detection_1.json", detections(event()))
    daemon.drop("vehicles_status_1.json", statuses(report()))
    daemon.until_empty()
    assert daemon.rows("SELECT count(*) FROM mobileye_data.objects_detection_events") == [(2,)]
    assert daemon.rows("SELECT status FROM mobileye_data.vehicle_status") == [("driving",)]
    assert daemon.stop() == 0
