"""Devices: what lies where, and losses that depend on neither devices, processes nor fsdp.

The networks are tiny, in float32. Devices add up the gradients of their parts of a batch, in
another order than one device does, so losses agree to rounding and not to the bit.
"""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.train_flax import devices
from examples.train_flax.config import Config, Refused
from examples.train_flax.data import load
from examples.train_flax.presets import PRESETS
from examples.train_flax.step import begin, fresh_state, train_epoch

SMOKE = dataclasses.replace(PRESETS["smoke"], steps=8)
VIT = dataclasses.replace(
    PRESETS["vit"],
    data_dir=None,
    depth=1,
    width=24,
    rule="uniform",
    drop_path_rate=0.3,
    batch=64,
    shift=1,
    steps=6,
    warmup_epochs=0,
)
# the ResNet of the paper, whose closed blocks are not run
BATCH = dataclasses.replace(SMOKE, network="resnet", mode="batch", scale_at="eval", rule="paper")
RAMP = dataclasses.replace(BATCH, ramp="early", ramp_end=0.15)  # of 40 steps, 6 of 8 taken
# under plans one layer of two is dropped, of the ResNet's first stage and of the ViT
PLAN = dataclasses.replace(SMOKE, mode="plan", depth=14, rule="uniform", drop_path_rate=0.5)
VIT_PLAN = dataclasses.replace(VIT, mode="plan", depth=2, drop_path_rate=0.5)
CONFIGS = {"row": SMOKE, "batch": BATCH, "balanced": VIT, "ramp": RAMP}
CONFIGS |= {"plan": PLAN, "plan of a vit": VIT_PLAN}
LEARNT = 3e-5  # absolute, after 6 or 8 steps


@cache
def losses(cfg: Config, count: int, fsdp: bool = False):
    assert jax.device_count() >= 4
    cfg = dataclasses.replace(cfg, devices=count, fsdp=fsdp)
    data = load(cfg)
    run, placed = begin(cfg, data)
    state, values = train_epoch(run, fresh_state(run, data), placed.train, 1)
    assert {len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state)} == {count}
    return np.asarray(values), state


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "count"),
    [
        *[("row", 2), ("batch", 4), ("balanced", 2), ("balanced", 4), ("ramp", 4)],
        *[("plan", 8), ("plan of a vit", 8)],
    ],
)
def test_the_losses_of_a_run_do_not_depend_on_the_number_of_devices(mode, count):
    cfg = CONFIGS[mode]
    (one, _), (many, _) = losses(cfg, 1), losses(cfg, count)
    assert len(one) == cfg.steps
    np.testing.assert_allclose(many[0], one[0], rtol=0, atol=1e-6)  # before anything is learnt
    np.testing.assert_allclose(many, one, rtol=0, atol=LEARNT)


@pytest.mark.slow
def test_sharing_the_parameters_changes_no_loss_and_lays_a_part_on_each_device():
    (one, whole), (many, shared) = losses(VIT, 1), losses(VIT, 4, fsdp=True)
    np.testing.assert_allclose(many, one, rtol=0, atol=LEARNT)
    on_one = [leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(shared)]
    sizes = [leaf.size for leaf in jax.tree.leaves(whole)]
    parts = [size // part for size, part in zip(sizes, on_one, strict=True)]
    assert set(parts) == {1, 4}
    # qkv, up and down, of the parameters and of AdamW's two averages
    assert [size for size, part in zip(sizes, parts, strict=True) if part == 4] == [
        size for size in sizes if size >= devices.SMALL
    ]
    assert sum(part == 4 for part in parts) == 9


def test_an_array_is_shared_along_its_largest_axis_that_the_devices_divide():
    mesh = devices.make_mesh(dataclasses.replace(SMOKE, devices=4))
    shapes = {(64, 128): (None, "data"), (128, 66): ("data", None), (96, 96): ("data", None),
              (66, 66): (None, None), (8, 8): (None, None), (): ()}  # fmt: skip
    tree = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    assert [place.spec for place in devices.shardings(mesh, tree, fsdp=True)] == [
        jax.P(*spec) for spec in shapes.values()
    ]
    assert all(place.is_fully_replicated for place in devices.shardings(mesh, tree))


def test_a_device_count_that_does_not_fit_is_refused():
    count = jax.device_count() + 1
    with pytest.raises(Refused, match=f"devices must be at most {count - 1}, .* got {count}"):
        devices.make_mesh(dataclasses.replace(SMOKE, devices=count))


def test_a_batch_that_the_devices_do_not_divide_is_refused():
    with pytest.raises(Refused, match="batch must be a multiple of the 3 devices, got 128"):
        devices.make_mesh(dataclasses.replace(SMOKE, devices=3))


def test_groups_that_the_devices_would_cut_are_refused_where_rows_are_gathered():
    vit = dataclasses.replace(VIT, groups=2, devices=4)
    with pytest.raises(Refused, match="groups must be a multiple of the 4 devices, got 2: "):
        devices.make_mesh(vit)
    for cfg in (
        dataclasses.replace(vit, groups=8),
        dataclasses.replace(vit, skip=False),
        dataclasses.replace(vit, mode="row"),
        dataclasses.replace(BATCH, devices=4),
    ):
        assert devices.make_mesh(cfg).size == 4


def test_the_preset_of_the_vit_is_refused_on_16_devices(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 16)
    with pytest.raises(Refused, match="groups must be a multiple of the 16 devices, got 8"):
        devices.make_mesh(PRESETS["vit"])


def test_a_run_that_is_to_be_distributed_without_others_is_refused(monkeypatch):
    def initialize(*given):
        raise ValueError(f"coordinator_address should be defined, got {given}.\nand more")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(Refused) as refusal:
        devices.start(dataclasses.replace(SMOKE, distributed=True, processes=2))
    assert str(refusal.value) == (
        "distributed must find a cluster, or be given coordinator, processes and process: "
        "coordinator_address should be defined, got (None, 2, None)."
    )


def test_what_refuses_the_writer_is_raised():
    def refuse():
        raise Refused("no")

    with pytest.raises(Refused, match="no"):
        devices.writer_first(refuse)
    assert devices.is_writer()
    assert devices.writer_first(lambda: 3) == 3


PROCESS = """
import json, sys
import numpy as np
from examples.train_flax import devices
from examples.train_flax.config import Config, Refused

cfg = Config(**json.loads(sys.argv[1]))
devices.start(cfg)

import jax
from examples.train_flax.data import load
from examples.train_flax.step import begin, evaluate, fresh_state, train_epoch

def refuse():
    raise Refused("the writer's reason")

try:
    devices.writer_first(refuse)
except Refused as error:
    refusal = str(error)
data = load(cfg)
run, placed = begin(cfg, data)
state, losses = train_epoch(run, fresh_state(run, data), placed.train, 1)
error, _ = evaluate(run, state, placed.test)
print(json.dumps({"losses": np.asarray(losses).tolist(), "devices": jax.device_count(),
                  "writer": devices.is_writer(), "refusal": refusal, "error": float(error)}))
"""


def in_processes(cfg: Config, count: int, timeout: float = 300):
    """Return what each of so many processes on this machine prints; all are ended in time."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    environ = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
    environ.pop("JAX_NUM_CPU_DEVICES", None)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, json.dumps(dataclasses.asdict(
                dataclasses.replace(cfg, distributed=True, coordinator=coordinator,
                                    processes=count, process=process)
            ))],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ,
        )
        for process in range(count)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * count, said
    return [json.loads(out.splitlines()[-1]) for out, _ in said]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["balanced", "ramp", "plan of a vit"])
def test_two_processes_of_two_devices_have_the_losses_of_one_process(mode):
    cfg = dataclasses.replace(CONFIGS[mode], devices=4, fsdp=True, compilation_cache="")
    first, second = in_processes(cfg, 2)
    assert (first["devices"], first["writer"], second["writer"]) == (4, True, False)
    assert first["losses"] == second["losses"]
    assert first["error"] == second["error"]
    np.testing.assert_allclose(first["losses"], losses(CONFIGS[mode], 1)[0], rtol=0, atol=LEARNT)
    assert first["refusal"] == "the writer's reason"
    assert second["refusal"] == "process 0 was refused and says why"
