"""Collects the ```python blocks of README.md and docs/*.md as tests; sets what all tests share.

On the pages of ALONE each block runs by itself, since readers paste one; on the others a block sees
the names of those before it.
"""

import os
from importlib.util import find_spec

from hypothesis import settings
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

pytest_plugins = ["conformance.pytest_options"]  # --backend and --device

ALONE = ["README.md", "docs/index.md", "docs/from_*.md"]
SHARED = {"find_spec": find_spec}  # what the conditions of `skip:` comments may call


def run_alone(example: Example) -> None:
    """Run a block with none of the names of the blocks before it."""
    example.namespace.clear()
    example.namespace.update(SHARED)
    PythonEvaluator()(example)


pytest_collect_file = (
    Sybil(
        parsers=[CodeBlockParser(language="python", evaluator=run_alone), SkipParser()],
        patterns=ALONE,
        setup=lambda namespace: namespace.update(SHARED),
    )
    + Sybil(
        parsers=[PythonCodeBlockParser(), SkipParser()],
        patterns=["docs/*.md"],
        excludes=ALONE,
        setup=lambda namespace: namespace.update(SHARED),
    )
).pytest()

# The doctest collector imports every file, and an adapter of a peer imports that peer.
PEERS = ("keras", "timm", "torchvision", "transformers")
collect_ignore = [f"conformance/adapters/{peer}.py" for peer in PEERS if find_spec(peer) is None]

# The tests of sharding need several devices; JAX reads this when it first looks for any.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")

# TPUs and GPUs round the factors of float32 products to fewer bits unless they are told not to.
os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

# The same examples every time, and none too late: a busy machine is no failure.
settings.register_profile("droppath", deadline=None, derandomize=True)
settings.load_profile("droppath")
