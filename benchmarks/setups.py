"""The setups by name. What is here runs in a child, which loads one framework or looks for all."""

import os
from dataclasses import dataclass
from importlib.util import find_spec

from benchmarks.cases import Case
from benchmarks.child import Say
from benchmarks.measure import Setup, hold_memory, measure
from benchmarks.missing import package
from benchmarks.records import Record

FRAMEWORKS = {"torch": "PyTorch", "torch compiled": "PyTorch", "flax": "Flax"}
RAGGED = "how many rows run is known only when they are drawn"


@dataclass(frozen=True)
class Found:
    """devices: setup -> "cpu" or the GPU's name. left_out: what cannot take part, and why."""

    devices: dict[str, str]
    left_out: dict[str, str]


def find(device: str, say: Say) -> Found:
    """Return the setups that are there on "cpu" or "cuda"."""
    found = Found({}, {})
    for name, framework in FRAMEWORKS.items():
        say(f"loading {framework}")
        try:
            found.devices[name] = make(name, device).device
        except ModuleNotFoundError as error:
            found.left_out[framework] = f"{package(error)} is not installed"
        except RuntimeError as error:
            found.left_out[framework] = str(error)
    peers = [peer for peer in ("timm", "torchvision") if not find_spec(peer)]
    found.left_out.update(dict.fromkeys(peers, "not installed"))
    found.left_out["torchtune's method and ours, row, skipping, where compiled"] = RAGGED
    return found


def records(name: str, device: str, case: Case, seconds: float, say: Say) -> list[Record]:
    """Return the records of one setup on a case; see `measure`."""
    hold_memory()
    say(f"loading {FRAMEWORKS[name]}")
    return measure(case, make(name, device), seconds, say)


def make(name: str, device: str) -> Setup:
    """Return a setup. Raises ModuleNotFoundError or RuntimeError where there is none."""
    if name == "flax":
        if device == "cpu":  # read when JAX is first imported
            os.environ.setdefault("JAX_PLATFORMS", "cpu")
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        from benchmarks.flax_steps import FlaxSetup

        return FlaxSetup(device)
    from benchmarks.torch_steps import TorchSetup

    return TorchSetup(device, compiled=name == "torch compiled")
