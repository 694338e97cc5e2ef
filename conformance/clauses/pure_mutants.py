"""What the checks of PURE must reject."""

from conformance.mutant import answering, mutant

MUTANTS = (
    mutant("modifies x", "PURE-1", run=answering(x_after=lambda c, o: o.y)),
    mutant("moves the global state", "PURE-2", run=answering(drew=lambda c, o: c.key is not None)),
)
