"""Collects the ```python blocks of README.md and docs/*.md as tests; sets what all tests share."""

import os
from importlib.util import find_spec

from hypothesis import settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "docs/*.md"],
    setup=lambda namespace: namespace.update(find_spec=find_spec),
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
