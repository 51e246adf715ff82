"""Which MQTT the next connection speaks."""

from __future__ import annotations

from protocols.transport.versions import AUTO, FIVE, STAY_S, THREE, Versions


def test_what_was_asked_for_is_spoken() -> None:
    assert Versions(FIVE).five(0.0)
    assert not Versions(THREE).five(0.0)
    for wanted, five in ((FIVE, True), (THREE, False)):
        versions = Versions(wanted)
        assert not versions.failed(five=five, answered=False), "nobody asked for another version"
        assert versions.five(1.0) is five


def test_a_broker_that_knows_5_is_never_asked_for_less() -> None:
    versions = Versions(AUTO)
    versions.came_up(0.0, five=True)
    assert not versions.failed(five=True, answered=True), "a wrong password is no matter of versions"
    assert versions.five(1.0)


def test_one_that_does_not_is_asked_again_an_hour_later() -> None:
    versions = Versions(AUTO)
    assert versions.failed(five=True, answered=False)
    assert not versions.five(0.0)
    versions.came_up(10.0, five=False)
    assert not versions.five(10.0 + STAY_S - 1)
    assert versions.five(10.0 + STAY_S)


def test_where_neither_comes_up_both_are_tried_in_turn() -> None:
    versions = Versions(AUTO)
    assert versions.failed(five=True, answered=False)
    assert not versions.five(0.0)
    assert not versions.failed(five=False, answered=False), "now it is time to wait"
    assert versions.five(1.0)
