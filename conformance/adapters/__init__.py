"""One adapter a file, each with `backend(**options) -> Backend`; loaded by name, not imported."""
