"""The command of parity training: its table, its picture, its exit statuses."""

import importlib

import matplotlib.image
import numpy as np
import pytest

from conformance.parity import command
from conformance.parity.training import STEPS


def test_the_command_prints_a_table_and_draws_a_picture(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "losses", lambda name, *_: np.geomspace(2, 0.1, STEPS))
    assert command.main(["--plot", str(tmp_path / "parity.png")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("agrees") == 4
    assert printed.count("0.1000000000") == 8
    pixels = matplotlib.image.imread(tmp_path / "parity.png")
    assert min(pixels.shape[:2]) >= 500
    assert pixels.std() > 0.05


def test_the_command_fails_where_the_losses_differ(capsys, monkeypatch):
    monkeypatch.setattr(command, "losses", lambda name, *_: np.full(STEPS, len(name)))
    assert command.main(["--dtype", "float32", "--optimizer", "adamw"]) == 1
    assert capsys.readouterr().out.count("DIFFERS") == 1


def test_the_command_says_in_one_line_what_is_not_installed(capsys, monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(SystemExit, match="2"):
        command.main([])
    assert "No module named 'conformance.parity.torch'" in capsys.readouterr().err
