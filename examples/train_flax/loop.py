"""The loop over epochs: train, evaluate, write a row, save; and the same again from a checkpoint.

Repeating a command goes on where the last checkpoint stands and ends with the numbers of a run
never interrupted, bit for bit, however it was interrupted. With several processes all of them train
and save; the first alone writes the other files and speaks. Not here: the mathematics, which is
step.py's.
"""

import errno
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console

from examples.train_flax.checkpoint import open_checkpoints, restore_newest, save
from examples.train_flax.config import Config, Stopped
from examples.train_flax.data import Data, load
from examples.train_flax.devices import is_writer, writer_first
from examples.train_flax.folder import claim_run_dir, made_of
from examples.train_flax.masks import skipped_share
from examples.train_flax.metrics import Row, best_row, mean_skipped, open_record
from examples.train_flax.model import rates_at
from examples.train_flax.optimizer import learning_rate
from examples.train_flax.progress import show_progress
from examples.train_flax.report import Facts, write_report
from examples.train_flax.step import (
    Run,
    State,
    abstract_state,
    begin,
    count_parameters,
    evaluate,
    fresh_state,
    train_epoch,
)


class Result(NamedTuple):
    """What a run came to: its rows, one an epoch, and the state after the last."""

    rows: list[Row]
    state: State
    parameters: int
    train_images: int
    test_images: int
    steps: int  # of a whole epoch

    @property
    def best(self) -> Row:
        """The row that counts: of the lowest validation error; without validation, the last."""
        return best_row(self.rows)


def train(cfg: Config, console: Console, *, stop_after: int | None = None) -> Result:
    """Train up to epoch cfg.epochs, or stop_after, from where the run folder stands.

    Raises: Stopped after SIGTERM, at a number that is not finite, and if the disk is full.
    """
    data = load(cfg)
    run, placed = begin(cfg, data)
    if not is_writer():
        console = Console(quiet=True)
    made = made_of(cfg, data)
    lock = writer_first(lambda: claim_run_dir(cfg, made, console.print))
    with ExitStack() as stack, _sigterm_noted() as noted, _errors_told(cfg):
        if lock:
            stack.callback(lock.release)
        rows, state = train_epochs(run, placed, console, stop_after or run.epochs, noted)
        if noted():
            done = f"{len(rows)} of {run.epochs} epochs are saved"
            raise Stopped(f"{cfg.run_dir}: {done}, stopped by SIGTERM; the same command goes on", 0)
        images = len(data.train.labels), len(data.test.labels)
        result = Result(rows, state, count_parameters(state), *images, run.steps)
        if (skipped := mean_skipped(rows)) is not None:
            console.print(
                f"{cfg.run_dir}: the draw skipped {skipped:.1%} of all branches and steps"
            )
        if is_writer():
            write_report(cfg, run.steps, rows, Facts(result.parameters, *images, made))
    return result


def train_epochs(
    run: Run, data: Data, console: Console, last: int, noted: Callable[[], bool]
) -> tuple[list[Row], State]:
    """Return the rows and the state after epoch `last`, or after the one in which noted() is so."""
    cfg, run_dir = run.cfg, Path(run.cfg.run_dir)
    with open_checkpoints(run_dir) as manager:
        restored = restore_newest(manager, abstract_state(run, data), console.print)
        done, state, rows = restored or (0, fresh_state(run, data), [])
        console.print(f"{run_dir}: {done} of {run.epochs} epochs are done")
        with _record(run, rows) as record, show_progress(console, done, last) as show:
            for epoch in range(done + 1, last + 1):
                state, row, bad_step = train_and_test(run, state, data, epoch)
                if bad_step:
                    raise Stopped(_not_finite(run, bad_step, manager.latest_step()), 1)
                rows.append(row)
                record(row)
                stop = noted()
                if stop or epoch % cfg.checkpoint_every == 0 or epoch == run.epochs:
                    save(manager, epoch, state, rows)
                show(row)
                if stop:
                    break
    return rows, state


def train_and_test(run: Run, state: State, data: Data, epoch: int) -> tuple[State, Row, int | None]:
    """Return the state after epoch 1, 2, ..., its row, and the step that gave a NaN or infinity.

    The state that is given is used up. Steps count from 1.
    """
    start = time.perf_counter()
    state, step_losses = train_epoch(run, state, data.train, epoch)
    losses = np.asarray(step_losses)  # waits for the devices
    seconds = time.perf_counter() - start
    test_error, test_loss = evaluate(run, state, data.test)
    first, step = (epoch - 1) * run.steps, min(epoch * run.steps, run.last_step)
    row = Row(
        epoch=epoch,
        step=step,
        train_loss=float(losses.mean()),
        validation_error=data.validation and float(evaluate(run, state, data.validation)[0]),
        test_error=float(test_error),
        test_loss=float(test_loss),
        learning_rate=float(learning_rate(run.cfg, run.steps)(step - 1)),
        skipped=skipped_share(run.cfg, run.steps, np.arange(first, step)),
        images_per_s=(step - first) * run.cfg.batch / seconds,
        seconds=seconds,
    )
    finite = np.append(np.isfinite(losses), all_finite(state))  # a last update may spoil the state
    bad_step = None if finite.all() else min(first + int(finite.argmin()) + 1, step)
    return state, row, bad_step


@jax.jit
def all_finite(state: State) -> jax.Array:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(state)]).all()


def _not_finite(run: Run, step: int, checkpoint: int | None) -> str:
    cfg = run.cfg
    rates = ", ".join(f"{p:.3g}" for p in rates_at(cfg, run.steps, np.array([step - 1]))[0])
    good = "none" if checkpoint is None else f"{cfg.run_dir}/checkpoints/{checkpoint}"
    return (
        f"{cfg.run_dir}: the loss or an update is not finite at step {step}; layer rates: {rates}; "
        f"last good checkpoint: {good}"
    )


def _record(run: Run, rows: list[Row]) -> AbstractContextManager[Callable[[Row], None]]:
    if not is_writer():
        return nullcontext(lambda row: None)
    tensorboard = run.cfg.tensorboard and len(rows) < run.epochs
    return open_record(Path(run.cfg.run_dir), rows, tensorboard=tensorboard)


@contextmanager
def _sigterm_noted() -> Iterator[Callable[[], bool]]:
    """Give what says whether SIGTERM has come, to this process or to any other of the run.

    Every process must ask at the same places. Outside the main thread SIGTERM ends the run at once.
    """
    came = threading.Event()

    def noted() -> bool:
        if jax.process_count() == 1:
            return came.is_set()
        return bool(multihost_utils.process_allgather(np.array(came.is_set())).any())

    if threading.current_thread() is not threading.main_thread():
        yield noted
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.set())
    try:
        yield noted
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: not Python's, as JAX's


@contextmanager
def _errors_told(cfg: Config) -> Iterator[None]:
    """Raise Stopped, one line, for what the system or a device refuses."""
    try:
        yield
    except OSError as error:
        raise _stopped(cfg, str(error), ADVICE.get(error.errno or 0, "that is mended")) from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        what = f"no memory is left on the device: {str(error).splitlines()[0]}"
        raise _stopped(cfg, what, "there is memory") from error


def _stopped(cfg: Config, what: str, once: str) -> Stopped:
    saved = f"what was saved stands, and once {once} the same command goes on"
    return Stopped(f"{cfg.run_dir}: {what}; {saved}", 1)


ADVICE = {  # when the same command goes on
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "there is space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "it may be written to"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR), "the folder is there again"),
}
