"""`make demo`: what it makes ready before the play begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.demo.__main__ import make_room
from protocols.errors import ConfigError


def test_the_folder_of_the_report_is_made_as_a_fresh_clone_has_none(tmp_path: Path) -> None:
    make_room(tmp_path / "out" / "more" / "report.json")
    assert (tmp_path / "out" / "more").is_dir()


def test_where_no_report_can_be_is_said_before_the_play(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is no folder, nor can it be made"):
        make_room(tmp_path / "file" / "report.json")
    with pytest.raises(ConfigError, match="is a folder"):
        make_room(tmp_path)
