from pathlib import Path

import pytest

from examples.train_flax.files import write_whole


def test_a_write_that_is_cut_short_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_whole(path, "before")

    def fail(draft, target):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "afterwards")
    assert path.read_text() == "before"


def test_a_draft_that_a_killed_process_left_is_no_hindrance(tmp_path):
    (tmp_path / "a.part").write_text("aft")
    write_whole(tmp_path / "a.json", "afterwards")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_link_that_lies_in_the_drafts_place_is_not_followed(tmp_path):
    victim = tmp_path / "thesis.tex"
    victim.write_text("years of work")
    (tmp_path / "a.part").symlink_to(victim)
    write_whole(tmp_path / "a.json", "{}")
    assert victim.read_text() == "years of work"
    assert (tmp_path / "a.json").read_text() == "{}"
