"""The conformance suite: SPEC.md's clauses as checks, for any DropPath behind a small adapter.

`python -m conformance` runs it. Nothing here imports a framework: adapters and the two trainers of
parity do, loaded by name.
"""
