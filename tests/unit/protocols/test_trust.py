"""Trust: keys, signatures, passwords, tokens, cards and addresses, and every way to get them wrong."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from protocols.errors import ConfigError, InvalidInput, NotVerified
from protocols.trust import (
    HubAddress,
    NodeKey,
    fingerprint,
    format_address,
    hash_password,
    make_card,
    new_password,
    new_token,
    parse_address,
    parse_card,
    password_matches,
    read_secret,
    token_hash,
    token_matches,
    verify,
    write_secret,
)

KEY = NodeKey(bytes(range(32)))
CHEAP = hash_password("pw", n=2)


def card(**changes: object) -> dict[str, object]:
    made: dict[str, object] = dict(make_card(KEY, node="madrid-1", org="acme", region="EMEA", site="W8-Madrid", password_hash=CHEAP))
    return made | changes


# --- keys


def test_a_key_signs_as_rfc_8032_says() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    key = NodeKey(seed)
    assert key.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert key.sign(b"").hex().startswith("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")


def test_a_saved_key_comes_back_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path, key = tmp_path / "node.key", NodeKey.generate()
    old = os.umask(0)
    try:
        key.save(path)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert NodeKey.load(path).public == key.public
    assert NodeKey.generate().public != key.public


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    KEY.save(path)
    with pytest.raises(ConfigError, match="never overwritten"):
        NodeKey.generate().save(path)
    assert NodeKey.load(path).public == KEY.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_can_reach_is_refused_with_the_command_that_mends_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    KEY.save(path)
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        NodeKey.load(path)
    assert "chmod 600" in caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"hello", b"longshore-key-1:AAAA\n", b"longshore-key-1:!!!\n", b"\xff\xfe"])
def test_a_damaged_key_file_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError):
        NodeKey.load(path)


def test_a_missing_key_or_directory_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no key"):
        NodeKey.load(tmp_path / "node.key")
    with pytest.raises(ConfigError, match="Cannot write"):
        KEY.save(tmp_path / "nowhere" / "node.key")


def test_other_secrets_follow_the_same_rules(tmp_path: Path) -> None:
    path = tmp_path / "api.token"
    write_secret(path, "lst_x\n", what="token")
    assert read_secret(path, what="token") == "lst_x\n"
    with pytest.raises(ConfigError, match="token"):
        write_secret(path, "lst_y\n", what="token")


def test_the_private_half_shows_in_no_representation() -> None:
    assert repr(KEY) == f"NodeKey({fingerprint(KEY.public)})"


# --- signatures


def test_a_signature_holds_for_its_bytes_and_its_key_only() -> None:
    signature = KEY.sign(b"facts")
    verify(KEY.public, signature, b"facts")
    broken = bytes([signature[0] ^ 1]) + signature[1:]
    for public, sig, data in [
        (KEY.public, signature, b"fact"),
        (KEY.public, broken, b"facts"),
        (KEY.public, signature[:-1], b"facts"),
        (KEY.public, b"", b"facts"),
        (NodeKey.generate().public, signature, b"facts"),
    ]:
        with pytest.raises(NotVerified):
            verify(public, sig, data)


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33)])
def test_a_key_of_the_wrong_length_verifies_nothing(public: bytes) -> None:
    with pytest.raises(NotVerified, match="32 bytes"):
        verify(public, bytes(64), b"")


def test_a_key_under_which_anybody_could_sign_is_refused() -> None:
    identity = (1).to_bytes(32, "little")
    forged = identity + bytes(32)
    with pytest.raises(NotVerified, match="small order"):
        verify(identity, forged, b"never signed by anybody")


def test_the_list_of_small_order_points_is_complete() -> None:
    """Eight points of order dividing 8 on edwards25519, computed here from the curve equation rather than copied."""
    from protocols import trust

    p = (1 << 255) - 19
    d = -121665 * pow(121666, p - 2, p) % p
    # Order 1 and 2: y = 1 and y = -1. Order 4: y = 0. Order 8: x^2 = y^2 up to a factor of -1, so d*y^4 + 2*y^2 - 1 = 0.
    root_of_minus_one = pow(2, (p - 1) // 4, p)

    def sqrt(a: int) -> list[int]:
        r = pow(a, (p + 3) // 8, p)
        return [c for c in (r, r * root_of_minus_one % p) if c * c % p == a % p]

    ys = {0, 1, p - 1}
    for root in sqrt(1 + d):
        for sign in (1, -1):
            ys |= {y for r in sqrt((-1 + sign * root) * pow(d, p - 2, p) % p) for y in (r, p - r)}
    assert ys | {p, p + 1} == trust._SMALL_ORDER


def test_a_fingerprint_is_short_and_stable() -> None:
    assert fingerprint(KEY.public) == "SHA256:Vkdap1RjR0wChd9dvyvKtz2m"
    assert fingerprint(KEY.public) != fingerprint(bytes(32))


# --- passwords and tokens


def test_a_password_is_known_by_its_salted_hash() -> None:
    assert password_matches("pw", CHEAP)
    assert not password_matches("pW", CHEAP)
    assert hash_password("pw", n=2) != CHEAP
    assert hash_password("x").startswith("scrypt$1024$8$1$")
    assert "pw" not in CHEAP.split("$")
    assert len(new_password()) == 32
    assert new_password() != new_password()


@pytest.mark.parametrize(
    "encoded",
    [
        "",
        "pw",
        CHEAP + "\n",
        CHEAP.replace("scrypt", "bcrypt"),
        CHEAP.replace("$2$", "$131072$"),
        CHEAP.replace("$2$", "$3$"),
        CHEAP.replace("$2$", "$0$"),
        CHEAP.replace("$8$1$", "$32$1$"),
        CHEAP.replace("$8$1$", "$0$1$"),
        CHEAP.replace("$8$1$", "$8$9$"),
        CHEAP[:-1],
    ],
    ids=["empty", "plain", "newline", "bcrypt", "n too large", "n odd", "n zero", "r too large", "r zero", "p too large", "short"],
)
def test_a_hash_that_is_none_or_asks_for_too_much_is_refused(encoded: str) -> None:
    with pytest.raises(InvalidInput):
        password_matches("pw", encoded)
    with pytest.raises(InvalidInput, match="brokerPassword"):
        make_card(KEY, node="a", org="a", region="a", site="a", password_hash=encoded)


def test_a_token_is_stored_hashed_and_matches_only_itself() -> None:
    token = new_token()
    stored = token_hash(token)
    assert token.startswith("lst_")
    assert token not in stored
    assert token_matches(token, stored)
    assert not token_matches(new_token(), stored)
    assert not token_matches(stored, stored)
    assert not token_matches("ü", stored)


# --- cards


def test_a_card_survives_json_and_proves_its_key() -> None:
    parsed = parse_card(json.loads(json.dumps(card())))
    assert (parsed.node, parsed.org, parsed.region, parsed.site) == ("madrid-1", "acme", "EMEA", "W8-Madrid")
    assert parsed.public_key == KEY.public
    assert parsed.password_hash == CHEAP
    assert parsed.fingerprint == fingerprint(KEY.public)


@pytest.mark.parametrize("field", ["node", "org", "region", "site"])
def test_a_card_changed_on_the_way_is_refused(field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_card(card(**{field: "other"}))
    assert caught.value.field == "signature"


def test_a_card_cannot_carry_another_nodes_key() -> None:
    stolen = make_card(NodeKey.generate(), node="madrid-1", org="acme", region="EMEA", site="W8-Madrid", password_hash=CHEAP)
    with pytest.raises(InvalidInput, match="signature"):
        parse_card(card(publicKey=stolen["publicKey"]))


def test_a_signature_over_other_bytes_of_the_same_key_is_no_card() -> None:
    plain = {name: value for name, value in card().items() if name != "signature"}
    bytes_without_context = json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()
    from protocols.trust import _encode64

    with pytest.raises(InvalidInput, match="signature"):
        parse_card(card(signature=_encode64(KEY.sign(bytes_without_context))))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"longshore": "node-card/2"}, "longshore"),
        ({"longshore": None}, "longshore"),
        ({"node": "Madrid"}, "node"),
        ({"node": 7}, "node"),
        ({"org": "a/b"}, "org"),
        ({"region": ""}, "region"),
        ({"site": "a+"}, "site"),
        ({"site": "\ud800"}, "site"),
        ({"publicKey": "AAAA"}, "publicKey"),
        ({"publicKey": "é" * 43}, "publicKey"),
        ({"brokerPassword": "pw"}, "brokerPassword"),
        ({"signature": ""}, "signature"),
        ({"extra": "x"}, "extra"),
    ],
)
def test_a_bad_card_is_refused_by_the_name_of_its_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_card(card(**changes))
    assert caught.value.field == field


@pytest.mark.parametrize("obj", [None, [], "card", 7])
def test_what_is_no_object_is_no_card(obj: object) -> None:
    with pytest.raises(InvalidInput, match="card"):
        parse_card(obj)


# --- addresses


@pytest.mark.parametrize(
    "address",
    [
        HubAddress("127.0.0.1", 1883, "acme", "hub-1", KEY.public),
        HubAddress("hub.example.org", 8883, "a.b_c-D", "hub-1", KEY.public, tls=True),
        HubAddress("::1", 1883, "acme", "hub-1", KEY.public),
    ],
)
def test_an_address_is_read_back_whole(address: HubAddress) -> None:
    assert parse_address(f"  {format_address(address)}\n") == address
    assert address.fingerprint == fingerprint(KEY.public)


GOOD = format_address(HubAddress("127.0.0.1", 1883, "acme", "hub-1", KEY.public))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("", "address"),
        ("127.0.0.1:1883", "address"),
        (GOOD.replace("longshore+mqtt", "mqtt"), "address"),
        (GOOD.replace(":1883", ""), "address"),
        (GOOD.replace(":1883", ":0"), "address"),
        (GOOD.replace(":1883", ":99999"), "address"),
        (GOOD.replace("127.0.0.1", "[::1"), "address"),
        (GOOD.replace("//127", "//me:pw@127"), "address"),
        (GOOD.replace("/acme", ""), "address.org"),
        (GOOD.replace("/acme", "/a/b"), "address.org"),
        (GOOD.replace("hub=hub-1", "hub=Hub"), "address.hub"),
        (GOOD.replace("hub=hub-1&", ""), "address"),
        (GOOD + "&key=AAAA", "address"),
        (GOOD + "&x=1", "address"),
        (GOOD + "#x", "address"),
        (GOOD[:-2], "address.key"),
        (GOOD + "=", "address.key"),
    ],
)
def test_a_mangled_address_is_refused_by_the_part_that_is_wrong(text: str, field: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_address(text)
    assert caught.value.field == field
