"""`python -m examples.train_flax`: train one network; `--help` lists every option."""

import sys
from collections.abc import Sequence
from contextlib import suppress

import jax
from rich.console import Console

from examples.train_flax.config import Config, command
from examples.train_flax.loop import train


def run(cfg: Config) -> None:
    """Train, and say what came of it."""
    pretend_devices(cfg)
    result = train(cfg, Console())
    row = result.rows[-1]
    wrong = round(row.test_error * result.test_images)
    print(
        f"{cfg.run_dir}: test error {row.test_error:.2%} ({wrong} of {result.test_images} images) "
        f"after {row.epoch} epochs; metrics.csv and plots/ are there"
    )


def pretend_devices(cfg: Config) -> None:
    """Let the CPU count as cfg.devices devices; in vain where JAX has already looked."""
    if cfg.devices:
        with suppress(RuntimeError):
            jax.config.update("jax_num_cpu_devices", cfg.devices)


def main(argv: Sequence[str] | None = None) -> int:
    return command(run, argv, __doc__)


if __name__ == "__main__":
    sys.exit(main())
