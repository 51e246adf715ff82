"""The lines that Mosquitto reads: the same rules as the table of channels, and hashes at a cost that a broker can bear."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from protocols import mosquitto
from protocols.errors import InvalidInput
from protocols.topics import Access, Address, allows, node_acl
from protocols.trust import NodeKey, hash_password, make_card, parse_card

MADRID = Address.of("acme", "EMEA", "W8-Madrid", "madrid-1")
SALT = bytes(12)
LISBON = Address.of("acme", "EMEA", "W9-Lisbon", "lisbon-1")


def test_the_file_says_the_same_rules() -> None:
    lines = mosquitto.acl([MADRID], hub_user="hub", org="acme")
    assert lines[0] == "user hub"
    assert "topic read longshore/v1/acme/+/+/+/up/live" in lines
    assert "topic write longshore/v1/acme/+/+/+/down/receipt" in lines
    claims = "longshore/hub/v1/acme/+/claim/+"
    assert [line for line in lines if "/claim/" in line] == [f"topic read {claims}", f"topic write {claims}"], "the hub's user alone"
    own = lines[lines.index("user madrid-1") + 1 :]
    assert own == [f"topic {access.value} {pattern}" for access, pattern in node_acl(MADRID)]
    assert f"topic write {MADRID.prefix}/up/live" in own
    assert not any("#" in line or "+" in line for line in own)


def test_patterns_allow_a_node_all_of_its_own_channels_and_none_of_anothers() -> None:
    patterns = [line.split(" ")[1:] for line in mosquitto.acl_patterns(hub_user="hub") if line.startswith("pattern ")]
    rules = [(Access(access), text.replace("%u", MADRID.node)) for access, text in patterns]
    assert all(allows(rules, access, topic) for access, topic in node_acl(MADRID))
    assert not any(allows(rules, access, topic) for access, topic in node_acl(LISBON))


def test_a_hash_is_what_mosquitto_computes() -> None:
    text = mosquitto.password_hash("s3cret", SALT)
    _, seven, iterations, salt, digest = text.split("$")
    assert (seven, iterations, base64.b64decode(salt)) == ("7", "101", bytes(12))
    assert base64.b64decode(digest) == hashlib.pbkdf2_hmac("sha512", b"s3cret", bytes(12), 101, 64)
    assert mosquitto.check_password_hash(text, "x") == text
    assert mosquitto.password_hash("s3cret", b"x" * 12) != text


def test_a_salt_repeats_for_the_same_user_and_password_only() -> None:
    assert mosquitto.salt_of("hub", "a") == mosquitto.salt_of("hub", "a")
    assert len({mosquitto.salt_of(*one) for one in [("hub", "a"), ("hub", "b"), ("huba", "")]}) == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s3cret",
        "$6$abc$def",
        f"$7$101$!!!!!!!!!!!!!!!!${'A' * 88}",
        f"$7$101${'A' * 16}${'A' * 87}",
        f"$7$0${'A' * 16}${'A' * 88}",
    ],
    ids=["empty", "plain", "another kind", "no base64", "too short", "no cost"],
)
def test_what_mosquitto_cannot_read_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="mosquittoPassword: is not a hash"):
        mosquitto.check_password_hash(text, "mosquittoPassword")


def test_a_hash_that_would_keep_a_broker_busy_is_refused() -> None:
    text = mosquitto.password_hash("x", SALT).replace("$101$", "$900000$")
    with pytest.raises(InvalidInput, match="at most 100000"):
        mosquitto.check_password_hash(text, "mosquittoPassword")


# ------------------------------------------------------------------ on a card


def card(**more: str) -> dict[str, str]:
    return make_card(NodeKey(b"k" * 32), node="dock-7", org="acme", region="R", site="S", password_hash=hash_password("x", n=2), **more)


def test_a_card_carries_the_hash_and_an_older_one_does_without() -> None:
    text = mosquitto.password_hash("x", SALT)
    assert parse_card(card(mosquitto_hash=text)).mosquitto_hash == text
    assert parse_card(card()).mosquitto_hash == ""


def test_a_hash_that_was_exchanged_is_no_part_of_the_card() -> None:
    with pytest.raises(InvalidInput, match="signature"):
        parse_card(card(mosquitto_hash=mosquitto.password_hash("x", SALT)) | {"mosquittoPassword": mosquitto.password_hash("mine", SALT)})
    with pytest.raises(InvalidInput, match="signature"):
        parse_card(card() | {"mosquittoPassword": mosquitto.password_hash("mine", SALT)})
    with pytest.raises(InvalidInput, match="mosquittoPassword"):
        parse_card(card() | {"mosquittoPassword": "hub:x\nroot:y"})


def test_the_shipped_configuration_lets_nobody_in_without_a_name_and_is_bounded() -> None:
    text = (Path(__file__).parents[3] / "deploy/mosquitto/mosquitto.conf").read_text()
    settings = dict(line.split(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
    assert settings["allow_anonymous"] == "false"
    assert {"password_file", "acl_file", "certfile", "keyfile"} <= settings.keys()
    assert all(int(settings[name]) > 0 for name in ("max_packet_size", "memory_limit", "max_queued_messages", "max_queued_bytes",
                                                    "max_inflight_messages", "max_connections", "max_keepalive"))  # fmt: skip
    assert settings["persistence"] == "true"
