"""What a ModuleNotFoundError says: a package is not installed, or the code is wrong."""

OWN = ("benchmarks", "conformance", "droppath", "droppath_flax", "droppath_torch")


def package(missing: ModuleNotFoundError) -> str:
    """Return the package that is not installed. Raises missing again where a file of ours is."""
    name = (missing.name or "").partition(".")[0]
    if not name or name in OWN:
        raise missing
    return name
