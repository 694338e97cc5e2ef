"""What the checks of TYPE must reject."""

from conformance.mutant import answering, mutant

MUTANTS = (
    mutant(
        "promotes bfloat16",
        "TYPE-1",
        run=answering(dtype=lambda c, o: "float32" if o.dtype == "bfloat16" else o.dtype),
    ),
    mutant("loses axes of size 1", "TYPE-2", run=answering(y=lambda c, o: o.y.squeeze())),
    mutant(
        "promotes in the other modes",
        "TYPE-1",
        run=answering(dtype=lambda c, o: "float32" if "mode" in c.options else o.dtype),
    ),
    mutant(
        "promotes in evaluation where the factor moves there",
        "TYPE-1",
        run=answering(
            dtype=lambda c, o: (
                "float32" if c.options.get("scale_at") == "eval" and not c.training else o.dtype
            )
        ),
    ),
    mutant(
        "promotes a block",
        "TYPE-1",
        run=answering(dtype=lambda c, o: "float32" if c.op == "residual" else o.dtype),
    ),
    mutant(
        "promotes the gradient of evaluation",
        "TYPE-1",
        run=answering(
            dx_dtype=lambda c, o: "float32" if o.dx_dtype and not c.training else o.dx_dtype
        ),
    ),
    mutant(
        "promotes an empty batch",
        "TYPE-1",
        run=answering(dtype=lambda c, o: o.dtype if c.x.size else "float64"),
    ),
    mutant(
        "loses a batch of one at p = 1",
        "TYPE-2",
        run=answering(y=lambda c, o: o.y.squeeze(0) if len(o.y) == 1 and c.drop_prob == 1 else o.y),
    ),
    mutant(
        "flattens the gradient",
        "TYPE-2",
        run=answering(dx=lambda c, o: o.dx if o.dx is None else o.dx.reshape(len(o.dx), -1)),
    ),
)
