"""What the checks of DIST must reject."""

from dataclasses import replace

import droppath
from conformance.mutant import calling, compiling, is_skipping, mutant, words

MUTANTS = (
    mutant(
        "a mask that depends on the number of devices",
        "DIST-1",
        run=calling(key=lambda c: c.key if c.shards == 1 else droppath.fold_in(words(c), c.shards)),
    ),
    mutant(
        "rows gathered from other devices",
        "DIST-2",
        **compiling(lambda c, o: replace(o, collectives=int(is_skipping(c)))),
    ),
)
