"""The run folder: of one config, new or a run's, or refused and left alone."""

import dataclasses
import json
import os

import pytest

from examples.train_flax.__main__ import main
from examples.train_flax.config import PRESETS, Config, Refused, parse
from examples.train_flax.folder import claim_run_dir


def test_the_run_folder_holds_the_resolved_config(tmp_path):
    cfg = dataclasses.replace(PRESETS["smoke"], run_dir=str(tmp_path / "new" / "run"))
    path = claim_run_dir(cfg) / "config.json"
    assert json.loads(path.read_text()) == dataclasses.asdict(cfg)


def test_a_run_folder_of_another_config_is_refused_and_left_alone(tmp_path, capsys):
    argv = ["--preset", "smoke", "--run-dir", str(tmp_path)]
    path = claim_run_dir(parse(argv)) / "config.json"
    before = path.read_bytes()
    assert main([*argv, "--drop-path-rate", "0.1"]) == 2
    assert capsys.readouterr().err == (
        f"error: run_dir must not belong to another config: {path} has drop_path_rate=0.2, "
        "this run drop_path_rate=0.1; name another with --run-dir\n"
    )
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(Refused, match="run_dir must be new, empty or an earlier run's folder"):
        claim_run_dir(Config(run_dir=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ["{", "[]", "null"])
def test_a_config_json_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Refused, match=r"config\.json must be"):
        claim_run_dir(Config(run_dir=str(tmp_path)))


def test_a_run_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="run_dir must be a folder to write to"):
        claim_run_dir(Config(run_dir=str(tmp_path / "file")))


@pytest.mark.parametrize("known", [True, False])
def test_a_run_folder_that_may_not_be_written_is_refused(known, tmp_path, monkeypatch):
    cfg = Config(run_dir=str(tmp_path))
    if known:
        claim_run_dir(cfg)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(Refused, match=f"run_dir must be a folder to write to, got {tmp_path}"):
        claim_run_dir(cfg)
    assert sorted(tmp_path.iterdir()) == before


def test_options_that_change_no_number_may_change_in_a_resumed_run(tmp_path):
    cfg = Config(run_dir=str(tmp_path))
    claim_run_dir(cfg)
    claim_run_dir(
        dataclasses.replace(cfg, devices=2, fsdp=True, checkpoint_every=3, tensorboard=False)
    )
