"""Data parallel: 1, 2 and 4 processes train to the same weights, in every mode, at every rate.

DistributedDataParallel and fully_shard (FSDP2), with gloo on the CPU. One group of processes for
each number of them runs all cases and hands back a dict. Not tested here: other devices.
"""

import time
import warnings
from contextlib import nullcontext
from datetime import timedelta
from functools import cache
from itertools import product
from multiprocessing import get_context

import pytest
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import droppath
from droppath_torch import DropPath, DropPathResidual, drop_path_stack, keyed, skip_dropped

KEY = droppath.key(3)
MODES, RATES, KINDS = ["row", "balanced", "batch"], [0.0, 0.05, 0.5, 0.95, 1.0], ["ddp", "fsdp"]
CASES = list(product(KINDS, MODES, RATES))
SKIPPED = ["row", "balanced"]  # the modes of skip_dropped
BATCH, GROUP, STEPS = 8, 2, 4
SECONDS = 120  # of a group of processes, before it is killed: 15 where nothing else runs

# Ranks and micro-batches add the same float64 numbers in another order: each sum may differ by
# 2e-16 of itself. Of weights and gradients up to 5, at most 2e-15 was measured.
ROUNDING = {"rtol": 0, "atol": 1e-13}


class Masked(nn.Module):
    """A residual block with a DropPath, as in timm."""

    def __init__(self, branch: nn.Module, drop_path: DropPath) -> None:
        super().__init__()
        self.branch, self.drop_path = branch, drop_path

    def forward(self, x):
        return x + self.drop_path(self.branch(x))


class Network(nn.Module):
    def __init__(self, mode, rate, batch=BATCH, *, skip=None, checkpointed=False) -> None:
        super().__init__()
        torch.manual_seed(0)
        options = {"mode": mode, "groups": batch // GROUP if mode == "balanced" else 1}
        branches = [nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4), nn.Tanh()) for _ in range(3)]
        self.stem = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(
            [
                DropPathResidual(branches[0], rate, skip=skip, **options),
                Masked(branches[1], DropPath(rate, **options)),
                DropPathResidual(branches[2], rate, skip=skip, **options),
            ]
        )
        self.checkpointed = checkpointed
        self.double()

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return x


class Planned(Network):
    """The branches of a Network as a stack, of which two run in each step."""

    def __init__(self, zero_gradients=False):
        super().__init__("row", 0.5)
        self.zero_gradients = zero_gradients

    def forward(self, x, key):
        branches, rates = [block.branch for block in self.blocks], [0.25, 0.5, 0.25]
        x = self.stem(x)
        return drop_path_stack(x, branches, rates, key=key, zero_gradients=self.zero_gradients)


def parallel(kind, network, unused=False):
    """Wrap a network. fully_shard takes branches: one that is not run is not gathered either."""
    if kind == "ddp":
        return DistributedDataParallel(network, find_unused_parameters=unused)
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    for block in network.blocks:
        fully_shard(block.branch, mesh=mesh)
    return fully_shard(network, mesh=mesh)


def numbers(step):
    return torch.randn(BATCH, 4, generator=torch.Generator().manual_seed(step)).double()


def train(model, rank=0, world=1, *, offset=None, planned=False):
    """Return the weights after STEPS steps, rank computing its share of each batch."""
    local = BATCH // world
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(STEPS):
        x = numbers(step)[rank * local :][:local]
        optimizer.zero_grad()
        key = droppath.fold_in(KEY, step)
        first = rank * local if offset is None else offset
        with nullcontext() if planned else keyed(model, key, offset=first):
            model(x, *[key] * planned).sub(x.flip(1)).square().mean().backward()
        optimizer.step()
    weights = [p.detach() for p in model.parameters()]
    return [w.full_tensor() if hasattr(w, "full_tensor") else w for w in weights]


def draw_apart(model, rank):
    """Train without a key, rank r on batches of r rows; return whether all gradients came."""
    torch.manual_seed(rank)
    came = []
    for _ in range(STEPS):
        model.zero_grad()
        model(torch.randn(rank, 4).double()).square().sum().backward()
        came += [p.grad is not None for p in model.parameters()]
    return all(came)


def run_rank(rank, world, folder):
    """Join the group of processes, run all cases, and save a dict of what they gave."""
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=(folder / "store").as_uri(),
        rank=rank,
        world_size=world,
        timeout=timedelta(seconds=SECONDS / 2),
    )
    torch.save(run_cases(rank, world), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def run_cases(rank, world):
    local, results = BATCH // world, {}
    for kind, mode, rate in CASES:
        model = parallel(kind, Network(mode, rate, local), unused=mode == "batch")
        results[kind, mode, rate] = train(model, rank, world)
        if mode != "batch":
            model = parallel(kind, Network(mode, rate, GROUP))
            results["apart", kind, mode, rate] = draw_apart(model, rank)
    for kind, mode in product(KINDS, MODES):
        network = Network(mode, 0.5, local, checkpointed=True)
        model = parallel(kind, network, unused=mode == "batch")
        results["checkpointed", kind, mode] = train(model, rank, world)
    for kind, mode in product(KINDS, SKIPPED):
        network = skip_dropped(Network(mode, 0.5, local), numbers(0))
        assert network.blocks[1].drop_path.why_masked == ""
        results["skipped", kind, mode] = train(parallel(kind, network), rank, world)
    for kind in KINDS:
        model = parallel(kind, Network("row", 0.5))
        results["one offset", kind] = train(model, rank, world, offset=0)
        for zeros in (False, True):
            model = parallel(kind, Planned(zeros), unused=not zeros)
            results["planned", kind, zeros] = train(model, rank, world, planned=True)
        model = parallel(kind, Network("batch", 0.5, skip=False))
        results["skip=False", kind] = train(model, rank, world)
    with pytest.raises(RuntimeError) as error:
        train(parallel("ddp", Network("batch", 0.5)), rank, world)
    return {**results, "unused": str(error.value)}


@cache
def train_alone(mode, rate):
    return train(Network(mode, rate))


@pytest.fixture(scope="module", params=[pytest.param(n, marks=pytest.mark.slow) for n in (2, 4)])
def ranks(request, tmp_path_factory):
    """Return what all cases gave on each process of a group."""
    world, folder = request.param, tmp_path_factory.mktemp("ranks")
    # one process imports PyTorch, all others are its forks
    get_context("forkserver").set_forkserver_preload([__name__])
    group = start_processes(
        run_rank, (world, folder), world, join=False, daemon=True, start_method="forkserver"
    )
    end = time.monotonic() + SECONDS
    try:
        while not group.join(max(end - time.monotonic(), 0)):  # raises what a process raised
            assert time.monotonic() < end, f"the {world} processes still run"
    finally:
        for process in group.processes:
            process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(world)]


def assert_close(results, wanted):
    assert len(results) == len(wanted) > 0
    for result, want in zip(results, wanted, strict=True):
        torch.testing.assert_close(result, want, **ROUNDING)


@pytest.mark.parametrize(("kind", "mode", "rate"), CASES)
def test_all_numbers_of_processes_train_to_the_same_weights(ranks, kind, mode, rate):
    want = train_alone(mode, rate)
    for results in ranks:
        assert_close(results[kind, mode, rate], want)


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_offset_a_rank_draws_the_masks_of_the_first(ranks, kind):
    pairs = zip(ranks[0]["one offset", kind], train_alone("row", 0.5), strict=True)
    assert max((a - b).abs().max() for a, b in pairs) > 0.01


@pytest.mark.parametrize(("kind", "mode"), list(product(KINDS, MODES)))
def test_activation_checkpointing_changes_no_bit(ranks, kind, mode):
    for results in ranks:
        pairs = zip(results["checkpointed", kind, mode], results[kind, mode, 0.5], strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("kind", "mode"), list(product(KINDS, SKIPPED)))
def test_blocks_that_skip_dropped_has_hooked_train_to_the_same_weights(ranks, kind, mode):
    for results in ranks:
        assert_close(results["skipped", kind, mode], train_alone(mode, 0.5))


@pytest.mark.parametrize(("kind", "mode", "rate"), [c for c in CASES if c[1] != "batch"])
def test_row_and_balanced_use_every_parameter_whatever_each_rank_draws(ranks, kind, mode, rate):
    assert all(results["apart", kind, mode, rate] for results in ranks)


@pytest.mark.parametrize(("kind", "zeros"), list(product(KINDS, (False, True))))
def test_a_planned_stack_trains_to_the_same_weights(ranks, kind, zeros):
    alone = train(Planned(), planned=True)
    for results in ranks:
        assert_close(results["planned", kind, zeros], alone)


def test_batch_mode_under_ddp_needs_find_unused_parameters(ranks):
    for results in ranks:
        assert results["unused"].startswith(
            "Expected to have finished reduction in the prior iteration before starting a new one."
        )


@pytest.mark.parametrize("kind", KINDS)
def test_batch_mode_that_computes_all_rows_needs_nothing(ranks, kind):
    for results in ranks:
        assert_close(results["skip=False", kind], train_alone("batch", 0.5))


@pytest.mark.parametrize(("mode", "rate"), list(product(MODES, RATES)))
@pytest.mark.parametrize("rows", [2, 4])
def test_micro_batches_with_their_offsets_accumulate_the_batchs_gradient(mode, rate, rows):
    x = numbers(0)
    whole, parts = Network(mode, rate), Network(mode, rate, rows)
    with keyed(whole, KEY):
        whole(x).square().sum().div(BATCH).backward()
    for start in range(0, BATCH, rows):
        with keyed(parts, KEY, offset=start):
            parts(x[start:][:rows]).square().sum().div(BATCH).backward()
    pairs = list(zip(whole.parameters(), parts.parameters(), strict=True))
    assert [a.grad is None for a, _ in pairs] == [b.grad is None for _, b in pairs]
    assert_close(*zip(*[(b.grad, a.grad) for a, b in pairs if a.grad is not None], strict=True))
