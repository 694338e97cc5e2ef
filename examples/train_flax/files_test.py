from pathlib import Path

import pytest

from examples.train_flax.files import write_whole


def test_a_write_that_is_cut_short_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_whole(path, "before")

    def cut(draft, text, encoding):
        draft.write_bytes(text[:3].encode(encoding))
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_text", cut)
    with pytest.raises(OSError, match="disk full"):
        write_whole(path, "afterwards")
    assert path.read_text() == "before"
    assert (tmp_path / "a.part").read_text() == "aft"
