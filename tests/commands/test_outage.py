"""What the log is told of an outage."""

from commands.outage import Outage


def test_a_reason_is_new_when_it_is_not_the_last_one() -> None:
    outage = Outage()
    reasons = ["closed", "closed", "read-only", "read-only", "closed"]
    assert [outage.is_new(reason) for reason in reasons] == [True, False, True, False, True]
