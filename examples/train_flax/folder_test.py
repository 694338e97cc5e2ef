"""The run folder: of one config, new or a run's, or refused and left alone."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from examples.train_flax.__main__ import main
from examples.train_flax.command import parse
from examples.train_flax.config import Config, Refused
from examples.train_flax.data import load
from examples.train_flax.folder import claim_run_dir, made_of
from examples.train_flax.presets import PRESETS

MADE = {"data": "d1", "code": "c1", "versions": {"jax": "0.10.2"}, "devices": 1}


def claim(cfg, made=MADE) -> tuple[Path, list[str]]:
    """Claim a folder and let it go; return it, and what was said."""
    said = []
    claim_run_dir(cfg, made, said.append).release()
    return Path(cfg.run_dir), said


def test_the_run_folder_holds_the_resolved_config(tmp_path):
    cfg = dataclasses.replace(PRESETS["smoke"], run_dir=str(tmp_path / "new" / "run"))
    path = claim(cfg)[0] / "config.json"
    assert json.loads(path.read_text()) == dataclasses.asdict(cfg)


def test_a_run_folder_of_another_config_is_refused_and_left_alone(tmp_path, capsys):
    argv = ["--preset", "smoke", "--run-dir", str(tmp_path)]
    path = claim(parse(argv))[0] / "config.json"
    before = path.read_bytes()
    assert main([*argv, "--drop-path-rate", "0.1"]) == 2
    assert capsys.readouterr().err == (
        f"error: run_dir must not belong to another config: {path} has drop_path_rate=0.2, "
        "this run drop_path_rate=0.1; name another with --run-dir\n"
    )
    assert path.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "lock", "made_of.json"}


def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(Refused, match="run_dir must be new, empty or an earlier run's folder"):
        claim(Config(run_dir=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("text", ["{", "[]", "null"])
def test_a_config_json_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(Refused, match=r"config\.json must be"):
        claim(Config(run_dir=str(tmp_path)))


def test_a_run_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="run_dir must be a folder to write to"):
        claim(Config(run_dir=str(tmp_path / "file")))


@pytest.mark.parametrize("known", [True, False])
def test_a_run_folder_that_may_not_be_written_is_refused(known, tmp_path, monkeypatch):
    cfg = Config(run_dir=str(tmp_path))
    if known:
        claim(cfg)
    before = sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(Refused, match=f"run_dir must be a folder to write to, got {tmp_path}"):
        claim(cfg)
    assert sorted(tmp_path.iterdir()) == before


def test_options_that_change_no_number_may_change_in_a_resumed_run(tmp_path):
    cfg = Config(run_dir=str(tmp_path))
    claim(cfg)
    claim(dataclasses.replace(cfg, devices=2, fsdp=True, checkpoint_every=3, tensorboard=False))


def test_a_folder_of_an_older_version_lacks_new_options_and_is_taken(tmp_path):
    cfg = Config(run_dir=str(tmp_path))
    path = claim(cfg)[0] / "config.json"
    old = json.loads(path.read_text())
    del old["schedule"], old["ramp"], old["ramp_end"]
    path.write_text(json.dumps(old))
    claim(cfg)
    with pytest.raises(Refused, match="has schedule='cosine', this run schedule='steps'"):
        claim(dataclasses.replace(cfg, schedule="steps"))
    with pytest.raises(Refused, match="has ramp='none', this run ramp='late'"):
        claim(dataclasses.replace(cfg, ramp="late"))


def test_more_epochs_are_refused_with_the_reason(tmp_path):
    cfg = Config(run_dir=str(tmp_path))
    claim(cfg)
    with pytest.raises(Refused, match="has epochs=30, this run epochs=40; the learning rate's sch"):
        claim(dataclasses.replace(cfg, epochs=40))


HOLDER = """
import sys, time
from examples.train_flax.config import Config
from examples.train_flax.folder import claim_run_dir

lock = claim_run_dir(Config(run_dir=sys.argv[1]), {made}, print)
print("held", flush=True)
time.sleep(60)
"""


def test_a_folder_in_use_is_refused_in_one_line_until_its_process_is_dead(tmp_path, capsys):
    argv = ["--run-dir", str(tmp_path), "--steps", "1", "--compilation-cache", ""]
    made = made_of(Config(run_dir=str(tmp_path)), load(Config()))
    holder = [sys.executable, "-c", HOLDER.format(made=made), str(tmp_path)]
    with subprocess.Popen(holder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(Refused, match=f"in use by another process, got {tmp_path}$"):
            claim(Config(run_dir=str(tmp_path)), made)
        assert main(argv[:2]) == 2
        assert capsys.readouterr().err == (
            f"error: run_dir must not be in use by another process, got {tmp_path}\n"
        )
        process.kill()
    claim(Config(run_dir=str(tmp_path)), made)


@pytest.mark.parametrize("changed", [{"epochs": 40}, {}])
def test_a_folder_that_was_refused_is_free_though_the_error_is_kept(tmp_path, changed):
    cfg = Config(run_dir=str(tmp_path))
    claim(cfg)
    with pytest.raises(Refused) as kept:
        claim(dataclasses.replace(cfg, **changed), MADE | {"data": "d2"})
    claim(cfg)
    assert "in use" not in str(kept.value)


def test_other_data_are_refused_and_the_folder_stays(tmp_path):
    cfg = Config(run_dir=str(tmp_path))
    claim(cfg)
    before = (tmp_path / "made_of.json").read_bytes()
    for given in (cfg, dataclasses.replace(cfg, other_code=True)):
        with pytest.raises(Refused, match=f"data must be those that {tmp_path} was begun with"):
            claim(given, MADE | {"data": "d2"})
    assert (tmp_path / "made_of.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"code": "c2"}, "other code"),
        ({"versions": {"jax": "0.11.0"}}, "jax 0.10.2 there and 0.11.0 here"),
        ({"versions": {"jax": "0.10.2", "flax": "1"}}, "flax None there and 1 here"),
    ],
)
def test_other_code_and_versions_are_refused_by_name_or_told_where_they_may(
    tmp_path, changed, told
):
    cfg = Config(run_dir=str(tmp_path))
    claim(cfg)
    with pytest.raises(Refused, match=f"begun with other versions or code: {told}; --other-code"):
        claim(cfg, MADE | changed)
    allowed = dataclasses.replace(cfg, other_code=True)
    assert claim(allowed, MADE | changed)[1] == [f"{tmp_path} goes on with {told}: not bit for bit"]
    assert claim(cfg, MADE | changed)[1] == []  # it is what it is made of now


def test_another_number_of_devices_is_told(tmp_path):
    cfg = Config(run_dir=str(tmp_path))
    claim(cfg)
    told = f"{tmp_path} goes on with 4 devices after 1: not bit for bit"
    assert claim(cfg, MADE | {"devices": 4})[1] == [told]


@pytest.mark.parametrize("text", [None, "{", "[]", '{"data": 1}', "null"])
def test_a_record_that_is_missing_or_damaged_is_told(tmp_path, text):
    cfg = Config(run_dir=str(tmp_path))
    path = claim(cfg)[0] / "made_of.json"
    path.unlink()
    if text is not None:
        path.write_text(text)
    assert claim(cfg)[1] == [
        f"{path} is missing or damaged: whether data, code and versions are the same is unknown"
    ]
    assert claim(cfg)[1] == []


def test_what_a_run_is_made_of_names_data_code_and_versions():
    cfg = PRESETS["smoke"]
    made, data = made_of(cfg, load(cfg)), load(cfg)
    assert made == made_of(cfg, load(cfg))
    assert {"Python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"} == (
        made["versions"].keys()
    )
    pixels = data.train.pixels.copy()
    pixels[0, 0, 0] += 1
    other = data._replace(train=data.train._replace(pixels=pixels))
    assert made_of(cfg, other)["data"] != made["data"]
    assert made_of(cfg, other)["code"] == made["code"]
