"""`python -m conformance.aot`: the command of command.py, once what it needs is there.

JAX reads the environment when it is first imported: what it needs is set here.
"""

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from conformance.extras import are_installed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status, or 2 if a package is missing."""
    if not are_installed("flax", "jax", "jax_cuda13_plugin", "libtpu", "rich", extras="aot"):
        return 2
    os.environ |= environment()
    from conformance.aot import command  # only now: it imports JAX

    return command.main(arguments)


def environment() -> dict[str, str]:
    """Return what lets JAX compile for devices that are not there, and without a word on stderr."""
    cuda = find_spec("nvidia.cu13") if find_spec("nvidia") else None
    home = next(iter(cuda.submodule_search_locations or [])) if cuda else ""
    flags = f"--xla_gpu_autotune_level=0 --xla_gpu_cuda_data_dir={home}"  # tuning asks a device
    return {
        "JAX_PLATFORMS": "cpu",  # what this process itself runs on
        "TPU_SKIP_MDS_QUERY": "1",  # no metadata server of a cloud is asked
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # nothing is held that another process may want
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # what it would ask for; the target says it anew
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_MIN_LOG_LEVEL": "3",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PATH": os.pathsep.join([str(Path(home, "bin")), os.environ["PATH"]]),  # ptxas
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip(),
    }


if __name__ == "__main__":
    sys.exit(main())
