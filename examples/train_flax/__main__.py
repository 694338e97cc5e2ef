"""`python -m examples.train_flax`: train one network; `--help` lists every option."""

import sys
from collections.abc import Sequence

from examples.train_flax.extra import needs_extra

with needs_extra("example", __name__):
    from rich.console import Console

    from examples.train_flax.command import command
    from examples.train_flax.config import Config
    from examples.train_flax.devices import is_writer, start
    from examples.train_flax.loop import train


def run(cfg: Config) -> None:
    """Train, and say what came of it."""
    start(cfg)
    result = train(cfg, Console(quiet=not is_writer()))
    row = result.best
    wrong = round(row.test_error * result.test_images)
    if is_writer():
        print(
            f"{cfg.run_dir}: test error {row.test_error:.2%} ({wrong} of {result.test_images} "
            f"images) after {row.epoch} epochs; report.md and metrics.csv are there"
        )


def main(argv: Sequence[str] | None = None) -> int:
    return command(run, argv, __doc__ or "")


if __name__ == "__main__":
    sys.exit(main())
