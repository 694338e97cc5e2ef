"""What a figure depends on besides the code: the machine, the versions, the day."""

import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("droppath", "numpy", "torch", "triton", "timm", "torchvision", "transformers"),
    *("jax", "jaxlib", "flax"),
)


def facts(device: str, command: str) -> dict[str, Any]:
    """Return the facts that stand above a report's records; device is "cpu" or a GPU's name."""
    cpu = cpu_model()
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": cpu if device == "cpu" else device,
        "dtype": "float32" if device == "cpu" else "bfloat16",
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],  # of the last minute: near 0 on a quiet machine
        "system": platform.platform(),
        "versions": dict(versions()),
    }


def cpu_model() -> str:
    """Return the model's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def versions() -> Iterator[tuple[str, str]]:
    """Yield Python's version and those of the packages that are installed."""
    yield "python", platform.python_version()
    for package in PACKAGES:
        try:
            yield package, version(package)
        except PackageNotFoundError:
            continue
