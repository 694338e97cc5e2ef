"""What the checks of TYPE must reject."""

from conformance.mutant import answering, mutant

MUTANTS = (
    mutant(
        "promotes bfloat16",
        "TYPE-1",
        run=answering(dtype=lambda c, o: "float32" if o.dtype == "bfloat16" else o.dtype),
    ),
    mutant("loses axes of size 1", "TYPE-2", run=answering(y=lambda c, o: o.y.squeeze())),
)
