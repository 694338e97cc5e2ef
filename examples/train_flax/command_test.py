"""The command line and the presets."""

import dataclasses
import re
import shlex

import pytest

from examples.train_flax import compare
from examples.train_flax.__main__ import main
from examples.train_flax.command import command_line, parse
from examples.train_flax.config import Config
from examples.train_flax.presets import PRESETS


def test_no_argument_is_the_digits_preset():
    assert parse([]) == Config()


@pytest.mark.parametrize("preset", PRESETS)
def test_every_field_is_an_option_that_accepts_its_own_value(preset):
    want = dataclasses.asdict(PRESETS[preset])
    argv = []
    for name, value in want.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            argv.append(f"--{flag}" if value else f"--no-{flag}")
        elif value is not None:
            argv += [f"--{flag}", str(value)]
    assert dataclasses.asdict(parse(argv)) == want


def test_an_option_overrides_the_preset_and_leaves_the_rest():
    cfg = parse(["--preset", "smoke", "--drop-path-rate", "0.5", "--devices", "2"])
    want = dataclasses.replace(PRESETS["smoke"], drop_path_rate=0.5, devices=2)
    assert dataclasses.asdict(cfg) == dataclasses.asdict(want)


def test_a_ramp_is_taken_where_the_rows_that_run_are_not_compiled():
    for argv in (["--mode", "balanced", "--no-skip"], ["--mode", "batch"], ["--mode", "row"]):
        assert parse([*argv, "--ramp", "early"]).ramps
    with pytest.raises(ValueError, match="ramp must be one of 'none', 'early', 'late', got 'on'"):
        Config(ramp="on")


def test_every_field_has_a_help_text():
    assert all(field.metadata["help"] for field in dataclasses.fields(Config))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--depth", "19"], "depth must be 6n + 2 with n at least 1, got 19"),
        (["--seed", "-1"], "seed must be an integer in [0, 2**32), got -1"),
        (["--drop-path-rate", "nan"], "drop_path_rate must be a number in [0, 1], got nan"),
        (["--learning-rate", "inf"], "learning_rate must be finite and not negative, got inf"),
        (["--momentum", "1"], "momentum must be in [0, 1), got 1.0"),
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--devices", "0"], "devices must be at least 1, got 0"),
        (["--steps", "0"], "steps must be at least 1, got 0"),
        (["--validation", "-1"], "validation must be finite and not negative, got -1"),
        (["--groups", "3"], "groups must divide the batch of 64, got 3"),
        (["--network", "vit", "--heads", "5"], "heads must divide the width of 16, got 5"),
        (["--network", "vit", "--heads", "0"], "heads must be at least 1, got 0"),
        (["--data-dir", ""], "data_dir must be a path, got ''"),
        (["--validation", "1297"], "validation must be less than the 1297 images, got 1297"),
        (["--data-dir", "x" * 5000], "data_dir must be .* to read: File name too long"),
        (["--ramp-end", "0"], "ramp_end must be in (0, 1], got 0.0"),
        (["--ramp-end", "1.5"], "ramp_end must be in (0, 1], got 1.5"),
        (["--ramp-end", "nan"], "ramp_end must be in (0, 1], got nan"),
        (
            ["--mode", "balanced", "--ramp", "late"],
            "ramp must be 'none' where balanced mode skips, since the number of rows that run is "
            "compiled, got 'late': take --no-skip or --mode row",
        ),
        (["--warmup-epochs", "30"], "warmup_epochs must be less than the 30 epochs, got 30"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line(argv, message, capsys):
    assert main(argv) == 2
    assert re.fullmatch(
        f"error: {message if '.*' in message else re.escape(message)}\n", capsys.readouterr().err
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_the_command_line_of_a_config_gives_it_back(preset):
    cfg = PRESETS[preset]
    assert dataclasses.asdict(parse(shlex.split(command_line(cfg))[3:])) == dataclasses.asdict(cfg)


@pytest.mark.parametrize(
    ("command", "prog"),
    [
        (main, "python -m examples.train_flax"),
        (compare.main, "python -m examples.train_flax.compare"),
    ],
)
def test_help_names_the_command(command, prog, capsys):
    with pytest.raises(SystemExit):
        command(["--help"])
    assert capsys.readouterr().out.startswith(f"usage: {prog} [-h]")


@pytest.mark.parametrize(
    "argv",
    [
        ["--ramp", "on"],
        ["--epochs", "two"],
        ["--mode", "rows"],
        ["--preset", "x"],
        ["--epoch", "3"],
    ],
)
def test_a_word_out_of_place_is_refused_in_one_line(argv, capsys):
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert argv[0] in message


def test_the_row_twin_of_resnet110_differs_in_how_it_draws_and_scales_alone():
    paper, row = (dataclasses.asdict(PRESETS[name]) for name in ("resnet110", "resnet110-row"))
    assert {name for name in paper if paper[name] != row[name]} == {"run_dir", "mode", "scale_at"}
