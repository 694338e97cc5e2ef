"""Makes the golden vectors, the same bytes each time: `python -m conformance.make_golden`.

It has the standard library only, an own Threefry in Python's integers, and every number as an exact
fraction that is rounded to nearest, ties to even, where SPEC.md says so. Nothing of `droppath` and
nothing else of the suite is imported, so that a vector can prove the reference wrong too. Not
here: how a vector is read and used (docs/vectors.md, golden.py).
"""
