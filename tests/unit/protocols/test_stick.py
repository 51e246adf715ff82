"""A stick is read whole where it is whole; what is damaged is named and skipped, and nothing else is lost or made up."""

from __future__ import annotations

from io import BytesIO
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import InvalidInput
from protocols.limits import FRAME_WIRE_BYTES
from protocols.stick import Damage, Part, counted, read_stick, write_stick
from tests.support.often import seeds

PAYLOADS = [bytes([i]) * (100 + i) for i in range(20)]


def stick(payloads: list[bytes]) -> bytes:
    file = BytesIO()
    assert write_stick(file, payloads) == len(payloads)
    return file.getvalue()


def read(data: bytes) -> tuple[list[bytes], list[Damage]]:
    found = list(read_stick(BytesIO(data)))
    return [one.payload for one in found if isinstance(one, Part)], [one for one in found if isinstance(one, Damage)]


@given(st.lists(st.binary(max_size=500), max_size=12))
def test_what_was_written_is_what_is_read(payloads: list[bytes]) -> None:
    assert read(stick(payloads)) == (payloads, [])


def test_parts_of_any_length_pass_through_a_window_of_one() -> None:
    payloads = [bytes([n % 251]) * size for n, size in enumerate((0, 1, 65_536, 99_999, FRAME_WIRE_BYTES, 3, 65_530))]
    assert read(stick(payloads)) == (payloads, [])


def test_marks_within_a_part_are_no_parts() -> None:
    nested = stick([b"inner", b"\xb7LSP", b"LSEND"])
    assert read(stick([nested, b"after"])) == ([nested, b"after"], [])


@pytest.mark.parametrize("data", [b"", b"LSSTICK", b"PK\x03\x04" + bytes(30), b"LSSTICX\x01" + bytes(30)])
def test_another_file_is_refused_with_what_to_give_instead(data: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        list(read_stick(BytesIO(data)))
    assert caught.value.remedy


def test_a_later_version_is_refused() -> None:
    data = bytearray(stick(PAYLOADS))
    data[7] = 2
    with pytest.raises(InvalidInput, match="version 2"):
        read_stick(BytesIO(bytes(data)))


@pytest.mark.parametrize("seed", seeds(60, quick=10))
def test_damage_costs_the_parts_that_it_touches_and_is_named(seed: int) -> None:
    rng = Random(seed)
    print("seed", seed)
    data = bytearray(stick(PAYLOADS))
    starts, at = [], 12
    for payload in PAYLOADS:
        starts.append(at)
        at += 12 + len(payload)
    hit = sorted(rng.sample(range(len(PAYLOADS)), rng.randrange(1, 4)))
    for index in hit:
        offset = starts[index] + rng.randrange(12 + len(PAYLOADS[index]))
        data[offset] ^= 1 + rng.randrange(255)
    payloads, damage = read(bytes(data))
    assert payloads == [payload for index, payload in enumerate(PAYLOADS) if index not in hit]
    assert damage[0].at == starts[hit[0]]
    assert "20 parts were written" in damage[-1].reason


@pytest.mark.parametrize("cut", [12, 13, 20, 24, 25, 100, 1_000, -1, -16, -21, -22])
def test_a_stick_that_is_cut_off_says_so_and_gives_what_it_has(cut: int) -> None:
    whole = stick(PAYLOADS)
    payloads, damage = read(whole[:cut])
    assert payloads == PAYLOADS[: len(payloads)]
    assert len(payloads) >= (18 if cut < 0 else 0)
    assert damage


@pytest.mark.parametrize("cut", [13, 16, 20, 23, 24, 100])
def test_a_part_that_is_cut_off_is_said_to_be(cut: int) -> None:
    """At 16 nothing is left of it but its mark: not to be read as a part of no bytes."""
    payloads, damage = read(stick(PAYLOADS)[:cut])
    assert payloads == []
    assert damage[0].at == 12
    assert "cut off" in damage[0].reason or cut < 16


class Reads(BytesIO):
    """A file that gives at most so much at once, and notes how much it was asked for."""

    def __init__(self, data: bytes, most: int) -> None:
        super().__init__(data)
        self.most, self.asked = most, 0

    def read(self, size: int | None = -1) -> bytes:
        self.asked = max(self.asked, 1 << 60 if size is None or size < 0 else size)
        return super().read(min(self.asked if size is None or size < 0 else size, self.most))


def test_a_file_that_comes_in_small_pieces_is_read_whole() -> None:
    data = stick(PAYLOADS)
    assert [one.payload for one in read_stick(Reads(data, 100)) if isinstance(one, Part)] == PAYLOADS


def test_a_part_that_claims_to_be_endless_takes_no_memory() -> None:
    data = bytearray(stick([b"one", b"two"]))
    data[16:20] = b"\xff" * 4
    file = Reads(bytes(data), 1 << 30)
    first, *rest = read_stick(file)
    assert isinstance(first, Damage)
    assert "4294967295 bytes" in first.reason
    assert [one.payload for one in rest if isinstance(one, Part)] == [b"two"]
    assert file.asked <= FRAME_WIRE_BYTES


def test_what_follows_the_end_is_no_part_of_it_whole_or_damaged() -> None:
    whole = stick([b"one"])
    assert read(whole + stick([b"another stick"])[12:]) == ([b"one"], [])
    payloads, damage = read(whole[:20] + b"?" + whole[21:] + stick([b"another stick"])[12:])
    assert payloads == []
    assert [one.at for one in damage[:1]] == [12]


@pytest.mark.parametrize("before", [*range(65_530, 65_540), *range(131_064, 131_076)])
def test_a_mark_is_found_wherever_the_window_ends(before: int) -> None:
    good = stick([b"good"])
    assert read(good[:12] + b"?" * before + good[12:])[0] == [b"good"]


@pytest.mark.parametrize("seed", range(20))
def test_a_part_that_was_taken_out_or_put_in_twice_shows(seed: int) -> None:
    rng = Random(seed)
    print("seed", seed)
    data = stick(PAYLOADS[:3])
    first = data[12 : 12 + 12 + len(PAYLOADS[0])]
    changed = data[:12] + data[12 + len(first) :] if rng.random() < 0.5 else data[:12] + first + data[12:]
    assert read(changed)[1]


@given(st.binary(max_size=2_000))
def test_any_bytes_end_in_parts_and_damage(junk: bytes) -> None:
    head = stick([])[:12]
    for one in read_stick(BytesIO(head + junk)):
        assert isinstance(one, Part | Damage)


def test_much_junk_is_passed_in_one_go() -> None:
    good = stick([b"good"])
    junk = Random(5).randbytes(300_000).replace(b"\xb7LSP", b"....").replace(b"LSEND", b".....")
    payloads, damage = read(good[:12] + junk + good[12:])
    assert payloads == [b"good"]
    assert 1 <= len(damage) <= 3


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        ({"kept": 1, "known": 0, "newFacts": 1}, "1 message: 1 kept; 1 fact was new here"),
        ({"known": 2, "taken": 2, "newFacts": 0}, "4 messages: 2 known before, 2 taken note of; no fact was new here"),
        ({"new": 1_000, "newFacts": 20_000}, "1,000 messages: 1,000 new; 20,000 facts were new here"),
        ({"new": 0, "newFacts": 0}, "nothing is on it"),
    ],
    ids=["one", "again", "many", "none"],
)
def test_what_became_of_a_stick_is_said_in_words(counts: dict[str, int], says: str) -> None:
    assert counted(counts) == says
