"""The trainer of dictionaries: replayable, honest about what it measures, never over an old file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from deploy import train_dictionary as trainer
from protocols.codec import preset_dictionary


def events(total: int) -> list[dict[str, Any]]:
    return [
        {
            "orderId": f"PO-{n // 3}-L{n}",
            "source": "ERP",
            "status": ("PLACED", "DELIVERED")[n % 2],
            "timestamp": f"2026-05-{n % 28 + 1:02d}T10:00:00Z",
            "details": {"carrier": ("Penguin Freight", "Walrus Lines")[n % 2], "tracking": f"TRK-{n * 7919}", "quantity": n * 12},
        }
        for n in range(total)
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events(900)), encoding="utf-8")
    return path


def test_the_same_events_make_the_same_bytes() -> None:
    nodes = trainer.rows_of(events(300), 1)
    assert trainer.build(nodes) == trainer.build(trainer.rows_of(events(300), 1))


def test_words_that_come_back_are_in_it_and_names_of_single_things_are_no_words() -> None:
    nodes = trainer.rows_of(events(900), 1)
    assert b"Penguin Freight" in trainer.build(nodes)
    words = trainer.words_of(nodes)
    assert "Walrus Lines" in words
    assert not [word for word in words if word.startswith("TRK-") and word != "TRK-#"]


def test_it_fits_what_zlib_looks_back_at() -> None:
    assert len(trainer.build(trainer.rows_of(events(900), 1), bodies=900)) == trainer.DICTIONARY_BYTES


def test_lines_of_one_order_stand_on_one_side_of_the_split() -> None:
    sides: dict[str, set[bool]] = {}
    for event in events(900):
        sides.setdefault(event["orderId"].rsplit("-L", 1)[0], set()).add(trainer.trains(event))
    assert {len(side) for side in sides.values()} == {1}
    assert 100 < sum(side == {True} for side in sides.values()) < 200


def test_it_pays_on_orders_that_did_not_train_it() -> None:
    trained = trainer.build(trainer.rows_of([event for event in events(900) if trainer.trains(event)], 1))
    held_out = trainer.rows_of([event for event in events(900) if not trainer.trains(event)], 2)
    assert trainer.bytes_per_fact(held_out, trained, 1) < 0.8 * trainer.bytes_per_fact(held_out, preset_dictionary(1), 1)
    assert trainer.bytes_per_fact(held_out, preset_dictionary(1), 1) < trainer.bytes_per_fact(held_out, b"", 1)


def test_it_writes_a_new_file_and_never_over_an_old_one(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "2.bin"
    assert trainer.main([str(file), "--out", str(out)]) == 0
    assert str(out.stat().st_size) in capsys.readouterr().out
    before = out.read_bytes()
    assert trainer.main([str(file), "--out", str(out)]) == 2
    assert "exists" in capsys.readouterr().err
    assert out.read_bytes() == before
