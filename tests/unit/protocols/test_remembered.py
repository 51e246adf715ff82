"""What is remembered of rows, and what is not."""

from __future__ import annotations

from protocols.remembered import ROW_BYTES, remembered


def test_short_rows_are_remembered_long_ones_and_the_oldest_are_not() -> None:
    made: list[tuple[bytes, bool]] = []

    @remembered(2)
    def size(row: bytes, doubled: bool) -> int:
        made.append((row, doubled))
        return len(row) * (2 if doubled else 1)

    short, other, long = b"x" * ROW_BYTES, b"y", b"z" * (ROW_BYTES + 1)
    assert [size(short, False), size(short, False), size(short, True)] == [ROW_BYTES, ROW_BYTES, 2 * ROW_BYTES]
    assert [size(long, False), size(long, False)] == [ROW_BYTES + 1] * 2
    assert made == [(short, False), (short, True), (long, False), (long, False)]
    size(other, False)  # a third: the first is forgotten
    size(short, False)
    assert made[4:] == [(other, False), (short, False)]
