"""What the checks of EVAL must reject."""

from conformance.mutant import answering, calling, mutant

MUTANTS = (
    mutant("ignores training", "EVAL-1", run=calling(training=True, seed=lambda c: c.seed or 0)),
    mutant("draws in evaluation", "EVAL-1", run=answering(drew=lambda c, o: c.training is False)),
    mutant("draws at p = 0", "EVAL-2", run=answering(drew=lambda c, o: c.drop_prob == 0)),
)
