"""One adapter a file, each with `backend(**options) -> Backend`; loaded by name, not imported.

One file holds a maker of backends instead: torch_module.py, for any torch.nn.Module.
"""
