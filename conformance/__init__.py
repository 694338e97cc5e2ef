"""The conformance suite: SPEC.md's clauses as checks, for any DropPath behind a small adapter.

`python -m conformance` runs it. Nothing here imports a framework: adapters do, loaded by name.
"""
