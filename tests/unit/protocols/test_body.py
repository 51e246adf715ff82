"""Bodies of frames: rows arrive byte for byte whatever they hold, small where they are events; damage is one error."""

from __future__ import annotations

import hashlib
import random
import tracemalloc
import zlib
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import limits
from protocols.codec import CLOCKS, DICTIONARIES, decode_body, deflated, encode_body, pack, plain_body, preset_dictionary, unpack
from protocols.errors import DecodeError, TooLarge
from protocols.fact import to_row
from tests.unit.protocols.event_worlds import events
from tests.unit.protocols.plain_worlds import plain_values

MAX: Final = 1_000_000
SHA256: Final = {
    0: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    1: "a9ae47a4f60ba1a9522267bdedc67de8b37d20ee842bdffad0a97c0cfa35a082",
}
"""of each dictionary: frames that were compressed with it must open for ever"""


def event_row(number: int = 0, **other: Any) -> list[Any]:
    row = {
        "kind": 1,
        "org": "acme",
        "order_id": f"SO-{1000 + number}",
        "source": "WMS",
        "status": number % 9,
        "happened_ms": 1_779_372_000_000 + 60_000 * number,
        "quality": 0,
        "recorded_ms": 1_779_372_000_900 + 60_001 * number,
        "region": "EMEA",
        "site": "W8",
        "actor": None,
        "details": {"carrier": ("UPS", "DHL")[number % 2], "quantity": number * 7, "dueAt": f"2026-05-{number % 28 + 1:02d}T10:00:00Z"},
        "context": [],
    }
    return list((row | other).values())


def event_rows(total: int) -> list[bytes]:
    return [pack(event_row(number)) for number in range(total)]


def sent(rows: list[bytes], dictionary: int = 1, level: int = 6) -> list[bytes]:
    """What arrives of the rows; the values must be those of the bytes."""
    facts = decode_body(encode_body(rows, dictionary=dictionary, level=level), len(rows), dictionary)
    for row, values in facts:
        if values:
            assert unpack(row, max_bytes=MAX) == values or values != values
    return [row for row, _ in facts]


def squeezed(plain: bytes) -> bytes:
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(plain) + deflate.flush()


# ------------------------------------------------------------------ body: exact

ODD_CONTEXTS: Final[list[list[Any]]] = [[[]], [["n", 1, 2, b"5byte"]], [["n", 1, 2, "4444"]], [["n", True, 2, b"4444"]], [1]]
ROWS: Final[dict[str, list[bytes]]] = {
    "none": [],
    "one": event_rows(1),
    "a few": event_rows(7),
    "a frame": event_rows(100),
    "the most": event_rows(limits.FRAME_FACTS),
    "continues": [pack([2, 5, 6, b"8 bytes."]), *event_rows(3)],
    "a kind of the future": [*event_rows(3), pack([77, {"a": [None, 1.5]}]), *event_rows(2)],
    "trailing elements": [pack([*event_row(), "later", {"more": 1}]), *event_rows(2)],
    "not an array": [pack({"a": 1}), pack("text"), pack(None)],
    "not msgpack": [b"", b"\xc1", b"\xff" * 50],
    "longer than canonical": [b"\xdc\x00\x01\x05", b"\x92\x01\xcc\x05"],
    "two values in one, one in two": [b"\x92\x01", b"\x02", b"\x93\x01\x02\x03\x04"],
    "a key twice": [pack(event_row(details={})).replace(b"\x80\x90", b"\x82\xa1a\x01\xa1a\x02\x90")],
    "keys that are no texts": [pack(event_row(details={b"k": 1})), pack(event_row(details={"in": {b"k": 1}}))],
    "odd types": [pack(event_row(status=value)) for value in (True, -1, "5", None, 5.0, 2**64 - 1)]
    + [pack(event_row(org=None)), pack(event_row(recorded_ms=None)), pack(event_row(details=[])), pack(event_row(context=None))],
    "control characters": [pack(event_row(order_id=text)) for text in ("a\nb", "\x1e", "\x00", "a\tb", "\u00a0", "")]
    + [pack(event_row(details={"a\nb": 1, "c": "d\x1ee"}))],
    "marks of patterns": [pack(event_row(n, order_id=f"#{n}%d%s-{n}")) for n in range(9)],
    "leading zeros": [pack(event_row(n, order_id=f"SO-{n:04d}-00", actor=f"0{n}")) for n in range(30)],
    "digits beyond 64 bits": [pack(event_row(n, order_id=f"{10**40 + n}")) for n in range(30)],
    "large and negative": [pack(event_row(n, details={"n": v})) for n, v in enumerate([2**64 - 1, -(2**63), 0, -1, 63, 62, -32, -33])],
    "steps of the largest": [pack(event_row(n, details={"n": (2**64 - 1, -(2**63))[n % 2]})) for n in range(20)],
    "no times": [pack(event_row(n, happened_ms=None, quality=1)) for n in range(8)],
    "some times": [pack(event_row(n, happened_ms=None if n % 3 else n, quality=n % 3)) for n in range(20)],
    "impossible times": [pack(event_row(n, details={"at": f"2026-02-{n:02d}T25:61:00Z"})) for n in range(20, 30)],
    "times of many forms": [
        pack(event_row(n, details={"at": at}))
        for n, at in enumerate(
            [
                "2026-02-01",
                "2026-02-01T00:00:00Z",
                "2026-02-01T00:00:00.000Z",
                "2026-02-01T00:00:00+00:00",
                "20260201",
                "2026-02-01T24:00:00Z",
            ]
        )
    ],
    "times with ms": [pack(event_row(n, details={"at": f"2026-02-01T00:00:{n:02d}.{n:03d}Z"})) for n in range(30)],
    "the first and last year": [pack(event_row(n, details={"at": at})) for n, at in enumerate(["0001-01-01", "9999-12-31", "0000-01-01"])],
    "digits of other scripts": [pack(event_row(n, order_id=f"٣{n}-²{n}", details={"at": "٢٠٢٦-01-01"})) for n in range(20)],
    "mixed values of one key": [pack(event_row(n, details={"v": v})) for n, v in enumerate([1, "1", None, True, 1.0, b"1", [1], {"1": 1}])],
    "absent among texts": [pack(event_row(n, actor=None if n % 2 else f"a{n % 4}", site=None if n else "s")) for n in range(12)],
    "nested as deep as details may": [pack(event_row(details={"d": [[[[[[[["deep"]]]]]]]]}))],
    "nested deeper": [pack(event_row(details={"d": [[[[[[[[[[[[["deep"]]]]]]]]]]]]]})), *event_rows(2)],
    "contexts": [
        pack(event_row(n, context=[["edge-1", 2**62 + n % 2, n * 5, bytes((n, 0, 0, 255))], ["hub", 7, 1, b"\0\0\0\0"]][: n % 3]))
        for n in range(20)
    ],
    "odd contexts": [pack(event_row(context=context)) for context in ODD_CONTEXTS],
    "many keys": [pack(event_row(details={f"key{n}": n for n in range(64)})), pack(event_row(details={f"key{n}": n for n in range(65)}))],
    "key order": [pack(event_row(details={"a": 1, "b": 2})), pack(event_row(details={"b": 1, "a": 2}))],
    "not a number": [pack(event_row(details={"v": float("nan")})), pack([1.5, float("inf")])],
}


@pytest.mark.parametrize("dictionary", DICTIONARIES)
@pytest.mark.parametrize("name", list(ROWS))
def test_rows_arrive_byte_for_byte(name: str, dictionary: int) -> None:
    facts = decode_body(encode_body(ROWS[name], dictionary=dictionary), len(ROWS[name]), dictionary)
    assert [row for row, _ in facts] == ROWS[name]


@pytest.mark.parametrize("level", [1, 6, 9])
def test_every_level_reads_the_same(level: int) -> None:
    assert sent(ROWS["a frame"], level=level) == ROWS["a frame"]


def test_values_are_those_of_the_row() -> None:
    facts = decode_body(encode_body(ROWS["a frame"]), 100, 1)
    assert [values for _, values in facts] == [event_row(number) for number in range(100)]


def test_a_row_nobody_can_read_keeps_its_bytes_and_has_no_values() -> None:
    rows = [b"\xc1", *event_rows(1), pack("text"), pack([2, 5, 6, b"8 bytes."])]
    assert [values for _, values in decode_body(encode_body(rows), 4, 1)] == [[], event_row(0), [], [2, 5, 6, b"8 bytes."]]


def test_values_of_different_rows_share_nothing_that_can_change() -> None:
    rows = [pack(event_row(details={"l": [1]}, context=[["n", 1, 2, b"4444"]])) for _ in range(2)]
    (_, first), (_, second) = decode_body(encode_body(rows), 2, 1)
    first[11]["l"].append(2)
    first[12][0].append(2)
    assert second == event_row(details={"l": [1]}, context=[["n", 1, 2, b"4444"]])


short_texts = st.text(max_size=6) | st.sampled_from(["", "SO-1", "SO-22-L3", "2026-01-01", "2026-01-01T00:00:00Z", "#", "12.50", "é"])
numbers = st.integers(-100, 100) | st.integers(-(2**63), 2**64 - 1)
likely_rows = st.builds(
    event_row,
    org=short_texts,
    order_id=short_texts,
    source=short_texts,
    status=st.integers(0, 14) | numbers,
    happened_ms=st.none() | numbers,
    quality=st.integers(0, 3),
    recorded_ms=numbers,
    region=st.none() | short_texts,
    site=st.none() | short_texts,
    actor=st.none() | short_texts,
    details=st.dictionaries(
        st.sampled_from(["a", "b", "c", "d"]) | st.text(max_size=3),
        st.none() | numbers | short_texts | st.lists(numbers, max_size=2),
        max_size=4,
    ),
    context=st.lists(st.tuples(short_texts, numbers, numbers, st.binary(min_size=4, max_size=4)).map(list), max_size=3),
)


@given(st.lists(plain_values | st.lists(plain_values, max_size=14), max_size=8))
def test_arbitrary_values_as_rows_arrive_byte_for_byte(values: list[object]) -> None:
    rows = [pack(value) for value in values]
    assert sent(rows, 0) == rows


@given(st.lists(st.binary(max_size=30), max_size=8))
def test_arbitrary_bytes_as_rows_arrive_byte_for_byte(rows: list[bytes]) -> None:
    assert sent(rows) == rows


@given(st.lists(likely_rows, max_size=24), st.sampled_from(DICTIONARIES))
def test_rows_like_events_arrive_byte_for_byte(values: list[list[Any]], dictionary: int) -> None:
    rows = [pack(value) for value in values]
    assert sent(rows, dictionary) == rows


@given(st.lists(likely_rows, max_size=12), st.data())
def test_rows_with_clocks_arrive_byte_for_byte_with_any_dictionary(values: list[list[Any]], data: st.DataObject) -> None:
    clocks = st.sampled_from([(), (0,), (3,), (None,), (4,), (True,), (-1,), ("x",), (1, None), (2, [1, 2, b"8 bytes!"])])
    rows = [pack([*value, *data.draw(clocks)]) for value in values]
    for dictionary in DICTIONARIES:
        assert sent(rows, dictionary) == rows


def test_a_clock_costs_next_to_nothing_where_both_ends_know_of_them() -> None:
    plain = [pack(event_row(n)) for n in range(100)]
    clocked = [pack([*event_row(n), 3]) for n in range(100)]
    assert len(encode_body(clocked, dictionary=CLOCKS + 1)) <= len(encode_body(plain, dictionary=1)) + 10


def test_a_clock_that_nobody_knows_is_no_reason_to_read_on() -> None:
    texts, rest = plain_body([pack([*event_row(), 3])], clocks=True)
    sign = chr(64 + 8 * 4)  # quality 0, clock 3
    assert rest.decode().count(sign) == 1
    wrong = deflated((texts, rest.decode().replace(sign, chr(64 + 8 * 5)).encode()), 1, b"", 6)
    assert "clock" in decodes(wrong, dictionary=CLOCKS)


@given(st.lists(likely_rows | plain_values, max_size=12))
def test_events_between_strangers_arrive_byte_for_byte(values: list[object]) -> None:
    rows = [pack(value) for value in values]
    assert sent(rows) == rows


@given(st.lists(events(), min_size=1, max_size=12), st.integers(0, 2**41))
def test_valid_events_arrive_byte_for_byte(parsed: list[Any], recorded_ms: int) -> None:
    rows = [pack(to_row(event, recorded_ms + number, [])) for number, event in enumerate(parsed)]
    assert sent(rows) == rows


# ------------------------------------------------------------------ body: small


def test_likely_frames_are_small_and_the_dictionary_pays() -> None:
    one, frame = event_rows(1), event_rows(100)
    assert len(encode_body(frame)) < 7 * 100
    assert len(encode_body(one)) < 0.7 * len(encode_body(one, dictionary=0))


def test_one_stranger_does_not_cost_the_others_their_columns() -> None:
    frame = event_rows(100)
    assert len(encode_body([*frame, b"\xc1"])) < len(encode_body(frame)) + 40


def test_a_body_does_not_depend_on_what_was_encoded_before() -> None:
    bodies = [encode_body(event_rows(total)) for total in (1, 5, 100)]
    assert [encode_body(event_rows(total)) for total in (1, 5, 100)] == bodies


def test_what_is_too_large_for_a_frame_is_not_made() -> None:
    with pytest.raises(TooLarge, match="cut it smaller"):
        encode_body(event_rows(limits.FRAME_FACTS + 1))
    with pytest.raises(TooLarge, match="cut it smaller"):
        encode_body([pack("x" * 600_000)] * 2)


def test_numbers_that_need_more_room_as_text_are_not_made_into_a_frame_nobody_reads() -> None:
    chance = random.Random(1)
    rows = [pack(event_row(details={f"k{n}": chance.randrange(2**63, 2**64) for n in range(64)})) for _ in range(1_000)]
    assert sent(rows[:500]) == rows[:500]
    with pytest.raises(TooLarge, match="before compression"):
        encode_body(rows)


def test_the_largest_frame_that_is_made_is_read() -> None:
    chance = random.Random(1)
    rows = [chance.randbytes(limits.FRAME_UNPACKED_BYTES // limits.FRAME_FACTS) for _ in range(limits.FRAME_FACTS)]
    assert sent(rows) == rows


# ------------------------------------------------------------------ body: damage


def decodes(body: bytes, count: int = 1, dictionary: int = 0) -> str:
    """The reason why a body is refused; "" if it is not."""
    try:
        decode_body(body, count, dictionary)
    except DecodeError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("total", [1, 4, 12])
def test_a_body_cut_anywhere_is_refused(total: int) -> None:
    body = encode_body(event_rows(total))
    assert [end for end in range(len(body)) if not decodes(body[:end], total, 1)] == []


@pytest.mark.parametrize("total", [1, 12])
def test_a_flipped_bit_gives_an_error_or_other_rows(total: int) -> None:
    rows = event_rows(total)
    body = encode_body(rows)
    refused = 0
    for bit in range(len(body) * 8):
        flipped = bytearray(body)
        flipped[bit // 8] ^= 1 << bit % 8
        refused += bool(decodes(bytes(flipped), total, 1))
    assert refused > len(body) * 2


def test_flipped_bits_of_the_plain_body_give_an_error_or_other_rows() -> None:
    rows = [*event_rows(5), pack([9]), *ROWS["contexts"][:4], *ROWS["mixed values of one key"]]
    plain = b"".join(plain_body(rows))
    for bit in range(len(plain) * 8):
        flipped = bytearray(plain)
        flipped[bit // 8] ^= 1 << bit % 8
        decodes(squeezed(bytes(flipped)), len(rows))


@given(st.binary(max_size=120), st.integers(1, 5))
def test_any_bytes_as_a_body_give_rows_or_one_error(data: bytes, count: int) -> None:
    decodes(data, count, 1)
    decodes(squeezed(data), count)


signs = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7F), max_size=60)
figures = st.text("0123456789:;<=>?@ABCDEFGHIJKLM", max_size=60)


@given(
    st.lists(short_texts, max_size=12),
    signs,
    figures,
    st.none() | st.lists(st.lists(plain_values, max_size=3), max_size=3),
    st.integers(1, 6),
)
def test_any_streams_give_rows_or_one_error(texts: list[str], small: str, large: str, extras: Any, count: int) -> None:
    plain = "\x1e".join(("".join(f"{text}\n" for text in texts), small, large)).encode()
    decodes(squeezed(plain if extras is None else plain + b"\x1e" + pack(extras)), count)


@pytest.mark.parametrize("count", [1, 11, 13, 1_000])
def test_another_count_than_was_encoded_is_refused(count: int) -> None:
    assert decodes(encode_body(event_rows(12)), count, 1)


@pytest.mark.parametrize("bomb", [b"\0" * 5_000_000, b"A" * 2_000_000, b"\n" * 1_100_000, b"a\x1e@" + b":" * 1_100_000])
def test_what_decompresses_to_more_than_a_frame_may_hold_is_refused(bomb: bytes) -> None:
    assert "decompresses to more" in decodes(squeezed(bomb), limits.FRAME_FACTS)


def test_a_bomb_is_not_unpacked_first_and_measured_then() -> None:
    bomb = squeezed(b"\0" * 50_000_000)
    tracemalloc.start()
    try:
        assert "decompresses to more" in decodes(bomb)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("texts", "small", "large", "extras"), [(b"x\n", b"", b"", b""), (b"", b"@", b"", b""), (b"", b"", b":", b""), (b"", b"", b"", b"\xc0")]
)
def test_anything_left_over_in_a_stream_is_refused(texts: bytes, small: bytes, large: bytes, extras: bytes) -> None:
    before, rest = plain_body([*event_rows(3), b"\xc1"])
    _, signs, figures, raw = rest.split(b"\x1e")
    assert decodes(squeezed(b"\x1e".join((before, signs, figures, raw))), 4) == ""
    more = raw if not extras else pack([*unpack_list(raw), None])
    assert "left over" in decodes(squeezed(b"\x1e".join((before + texts, signs + small, figures + large, more))), 4)


def unpack_list(data: bytes) -> list[Any]:
    found = unpack(data, max_bytes=MAX)
    assert isinstance(found, list)
    return found


def test_a_bomb_in_the_second_stream_is_refused() -> None:
    assert "decompresses to more" in decodes(squeezed(b"a" * 900_000) + squeezed(b"b" * 900_000))


def test_bytes_behind_the_body_are_refused() -> None:
    assert "behind" in decodes(squeezed(b"a") + squeezed(b"b") + b"c")
    assert decodes(encode_body(event_rows(12)) + b"\0", 12, 1)


def squeezed_copies(row: list[Any], count: int) -> bytes:
    """A body that says `count` times the same row, past the bound that keeps the encoder from writing one."""
    texts, rest = plain_body([pack(row)])
    _, small, large = rest.split(b"\x1e")
    place = 6 + len(row[11])
    return squeezed(b"\x1e".join((texts, small[:place] + small[place : place + 1] * count + small[place + 1 :], large)))


def test_a_row_said_often_is_read_often_up_to_the_size_of_a_frame() -> None:
    row = event_row(actor="x" * 100)
    assert decode_body(squeezed_copies(row, 1_000), 1_000, 0) == [(pack(row), row)] * 1_000
    assert "grows beyond" in decodes(squeezed_copies(event_row(actor="x" * 500_000), 1_000), 1_000)
    assert "grows beyond" in decodes(squeezed_copies(event_row(context=[["n", 1, 2, b"4444"]] * 256), 1_000), 1_000)


def test_a_nested_value_among_the_extras_is_bounded() -> None:
    plain = b"\x1e".join((b"", b"@@A", b"", b"\x91" * 40 + b"\x00"))
    assert "nested" in decodes(squeezed(plain))


def test_numbers_without_end_are_refused() -> None:
    texts, rest = plain_body(event_rows(1))
    _, small, large = rest.split(b"\x1e")
    assert decodes(squeezed(b"\x1e".join((texts, small, large)))) == ""
    assert "numbers" in decodes(squeezed(b"\x1e".join((texts, small, b":" + b"9" * 800_000))))


def test_a_dictionary_this_node_does_not_have_is_named() -> None:
    with pytest.raises(DecodeError, match="dictionary 7, this node has 0, 1"):
        decode_body(encode_body(event_rows(1)), 1, 7)
    with pytest.raises(DecodeError, match="dictionary 7"):
        encode_body(event_rows(1), dictionary=7)


def test_a_body_read_with_another_dictionary_is_not_taken_for_the_rows() -> None:
    rows = event_rows(3)
    body = encode_body(rows)
    try:
        assert [row for row, _ in decode_body(body, 3, 0)] != rows
    except DecodeError:
        pass


# ------------------------------------------------------------------ dictionaries


@pytest.mark.parametrize("dictionary", DICTIONARIES)
def test_a_dictionary_never_changes(dictionary: int) -> None:
    data = preset_dictionary(dictionary)
    assert hashlib.sha256(data).hexdigest() == SHA256[dictionary % CLOCKS]
    assert len(data) <= 32_768


def test_every_dictionary_has_a_digest_here() -> None:
    assert sorted([*SHA256, *(number + CLOCKS for number in SHA256)]) == sorted(DICTIONARIES)
