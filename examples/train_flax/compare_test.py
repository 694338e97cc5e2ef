"""The comparison: two runs, one table, and the same table again."""

import json

import numpy as np
import pytest

from examples.train_flax import loop
from examples.train_flax.compare import main


@pytest.mark.slow
def test_the_table_has_both_depths_and_is_the_same_again(tmp_path, capsys, monkeypatch):
    argv = ["--preset", "smoke", "--run-dir", str(tmp_path / "run")]
    assert main(argv) == 0
    first = capsys.readouterr().out
    table = first[first.index("drop_path_rate") :]
    assert "0 (constant)" in table
    assert "3.00 of 3" in table
    assert "0.2 (stochastic)" in table
    assert "2.70 of 3" in table  # rates 0, 0.1, 0.2
    assert max(map(len, first.splitlines())) <= 80
    monkeypatch.setattr(loop, "train_epoch", None)
    assert main(argv) == 0
    assert capsys.readouterr().out.endswith(table)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"run-constant", "run-stochastic", "run-compare.png"}
    configs = [json.loads((tmp_path / f"run-{name}/config.json").read_text())
               for name in ("constant", "stochastic")]  # fmt: skip
    differing = {name for name in configs[0] if configs[0][name] != configs[1][name]}
    assert differing == {"run_dir", "drop_path_rate"}
    assert np.allclose([c["drop_path_rate"] for c in configs], [0, 0.2])


def test_constant_depth_is_not_compared_with_itself(tmp_path, capsys):
    assert main(["--drop-path-rate", "0", "--run-dir", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("error: drop_path_rate must be above 0")
    assert not list(tmp_path.iterdir())
