"""What a compiled program is held to: beside the plain block, beside masking, and on fewer chips.

Source: droppath/SPEC.md, RES-4 and DIST-2.
"""

from collections.abc import Mapping

from conformance.aot.program import Compiled, Program

LIMITS = {
    "F": "FLOPs are kept_capacity / b of those of the plain block, of a plan planned_depth / L of "
    "those of all layers, within 2 %",
    "M": 'temporary memory is at most that of masking; in "batch" mode at most 1.1 times, on GPUs '
    "(a TPU's program holds a part of it on the chip, which is not counted)",
    "C": 'collectives are those of the plain block; in "batch" mode of the same kinds: sums of '
    "gradients are not joined across two conditions; of a plan no more",
    "B": "no operation sees more than the device's own part of the batch",
    "S": "a device's FLOPs and collectives are those on the fewest chips of its kind",
    "D": "a step's result takes the place of the state that it is given",
}


def judge(
    program: Program, row: Compiled, beside: Mapping[str, Compiled], fewest: Compiled
) -> dict[str, bool]:
    """Return which of LIMITS the program keeps, of those that can be seen.

    beside: all programs for the same target, by name. fewest: the same on the fewest chips.
    """
    kept = {"B": row.batch == row.share, "C": _exchanges_as(program, row, beside)}
    if program.rows and row.flops:
        kept["F"] = _close(row.flops, program.rows * (beside[program.like or ""].flops or 0))
    if program.masked and not (program.conditional and row.kind.startswith("TPU")):
        most = 1.1 if program.conditional else 1.0
        kept["M"] = row.temporary <= most * beside[program.masked].temporary
    if row.chips > fewest.chips:
        alike = row.flops is None or _close(row.flops, fewest.flops or 0)
        kept["S"] = alike and row.collectives == fewest.collectives
    if program.state:
        kept["D"] = row.donated >= program.state
    return dict(sorted(kept.items()))


def _exchanges_as(program: Program, row: Compiled, beside: Mapping[str, Compiled]) -> bool:
    if program.like is None:
        return not row.collectives
    like = beside[program.like].collectives
    if program.loops:
        return all(count <= like.get(kind, 0) for kind, count in row.collectives.items())
    return set(row.collectives) == set(like) if program.conditional else row.collectives == like


def _close(got: float, want: float) -> bool:
    return abs(got - want) <= 0.02 * want
