"""What the checks of ARG must reject."""

from dataclasses import replace
from typing import Any

import numpy as np

import droppath
from conformance.mutant import REFERENCE, Part, answering, calling, mutant, op
from conformance.protocol import Array, Call, Outcome


def clipped(call: Call) -> Any:
    """Return drop_prob made good in silence."""
    try:
        return float(np.clip(np.nan_to_num(float(call.drop_prob)), 0, 1))
    except TypeError:
        return 0.0


def seed_truncated(seed: Any) -> Array:
    """Return the key of a seed modulo 2**32."""
    return np.array([0, int(seed) % 2**32], np.uint32)


def in_evaluation(name: str, good: Any) -> Part:
    """Return a `run` that takes an argument for a good one outside training."""
    return calling(**{name: lambda call: getattr(call, name) if call.training else good})


def of_numpy(call: Call) -> Any:
    """Return drop_prob, a bool or a complex number of NumPy read as a number."""
    p = call.drop_prob
    bad = isinstance(p, np.bool_ | np.complexfloating)
    return float(p.real) if bad else p


def shorter(call: Call) -> Any:
    """Return a keep of another shape broadcast to the batch."""
    keep = call.keep
    if keep is None or keep.dtype != bool or keep.size != 1:
        return keep
    return np.broadcast_to(keep.reshape(-1), call.x.shape[:1])


def spending() -> dict[str, Part]:
    """Return the parts of an implementation with a generator, which a refused call moves too."""
    count = [0]

    def run(call: Call) -> Outcome:
        if call.op not in ("drop_path", "residual") or call.key is not None:
            return REFERENCE.run(call)
        count[0] = call.seed if call.seed is not None else count[0]
        key = droppath.fold_in(droppath.key(2), count[0])
        count[0] += 1000  # before anything is refused
        return REFERENCE.run(call if call.keep is not None else replace(call, key=key))

    info = REFERENCE.info()
    info = replace(info, claims=info.claims - {"stateless"})
    return {"info": lambda: info, "run": run}


def claiming(claims: str, **parts: Part) -> dict[str, Part]:
    """Return the parts of a reference that claims no more than this."""
    info = replace(REFERENCE.info(), claims=frozenset(claims.split()))
    return {"info": lambda: info, **parts}


def refused_only(call: Call) -> Any:
    """Return drop_prob, but a good one for a list of one number."""
    p = call.drop_prob
    return p[0] if isinstance(p, list | tuple) and len(p) == 1 and call.op != "model" else p


MUTANTS = (
    mutant("accepts any rate", "ARG-1", run=calling(drop_prob=clipped)),
    mutant(
        "accepts integers",
        "ARG-2",
        run=calling(dtype=lambda c: c.dtype.replace("int32", "float32")),
    ),
    mutant(
        "an unknown mode is row",
        "ARG-3",
        run=calling(
            options=lambda c: {k: v for k, v in c.options.items() if v not in ("rows", None)}
        ),
    ),
    mutant(
        "keep of any dtype",
        "ARG-4",
        run=calling(keep=lambda c: None if c.keep is None else np.asarray(c.keep) != 0),
    ),
    mutant("truncates seeds", "ARG-5", compute=op("key", seed_truncated)),
    mutant(
        "residual that takes any rate",
        "ARG-1",
        run=calling(drop_prob=lambda c: clipped(c) if c.op == "residual" else c.drop_prob),
    ),
    mutant("rates unread in evaluation", "ARG-1", run=in_evaluation("drop_prob", 0.1)),
    mutant("NumPy's bools and complex numbers are rates", "ARG-1", run=calling(drop_prob=of_numpy)),
    mutant("a list of one rate is a rate", "ARG-1", run=calling(drop_prob=refused_only)),
    mutant(
        "1 + 2^-52 is 1 and -5e-324 is 0",
        "ARG-1",
        run=calling(
            drop_prob=lambda c: (
                min(max(c.drop_prob, 0.0), 1.0)
                if isinstance(c.drop_prob, float) and -1e-300 < c.drop_prob < 1 + 1e-15
                else c.drop_prob
            )
        ),
    ),
    mutant(
        "refuses NumPy's integers",
        "ARG-1",
        run=calling(
            drop_prob=lambda c: None if isinstance(c.drop_prob, np.integer) else c.drop_prob
        ),
    ),
    mutant(
        "s in the dtype of a NumPy rate",
        "ARG-1",
        run=answering(
            y=lambda c, o: (
                o.y * 1.001
                if isinstance(c.drop_prob, np.float16 | np.float32) and c.training
                else o.y
            )
        ),
    ),
    mutant(
        "a model's rates unread but the first",
        "ARG-1",
        run=calling(
            drop_prob=lambda c: (
                [
                    c.drop_prob[0],
                    *(p if type(p) is float and p < 1 else 0.1 for p in c.drop_prob[1:]),
                ]
                if c.op == "model"
                else c.drop_prob
            )
        ),
    ),
    mutant(
        "bools are numbers",
        "ARG-2",
        run=calling(dtype=lambda c: "float32" if c.dtype == "bool" else c.dtype),
    ),
    mutant(
        "complex x",
        "ARG-2",
        run=calling(dtype=lambda c: c.dtype.replace("complex64", "float32")),
    ),
    mutant(
        "integers pass in evaluation",
        "ARG-2",
        run=calling(dtype=lambda c: c.dtype if c.training else c.dtype.replace("int64", "float32")),
    ),
    mutant(
        "an axis beyond the last is the last",
        "ARG-2",
        run=calling(
            options=lambda c: {
                **c.options,
                **({"axis": 0} if c.options.get("axis") == c.x.ndim > 2 else {}),
            }
        ),
    ),
    mutant(
        "modes in any case of letters",
        "ARG-3",
        run=calling(
            options=lambda c: {
                k: v.lower().strip() if k == "mode" and isinstance(v, str) else v
                for k, v in c.options.items()
            }
        ),
    ),
    mutant("options unread in evaluation", "ARG-3", run=in_evaluation("options", {})),
    mutant(
        "a balanced mode alone, and an unknown one is row",
        "ARG-3",
        **claiming(
            "balanced",
            run=calling(
                options=lambda c: {
                    k: v for k, v in c.options.items() if k != "mode" or v == "balanced"
                }
            ),
        ),
    ),
    mutant(
        "scale_at alone, and an unknown one is train",
        "ARG-3",
        **claiming(
            "scale_at",
            run=calling(
                options=lambda c: {k: v for k, v in c.options.items() if v in ("train", "eval")}
            ),
        ),
    ),
    mutant(
        "keys alone, and the offset's sign is lost",
        "ARG-3",
        **claiming(
            "keyed",
            run=calling(
                options=lambda c: {
                    k: abs(v) if k == "offset" and isinstance(v, int) else v
                    for k, v in c.options.items()
                }
            ),
        ),
    ),
    mutant("a keep of one row is broadcast", "ARG-4", run=calling(keep=shorter)),
    mutant("keep unread in evaluation", "ARG-4", run=in_evaluation("keep", None)),
    mutant(
        "keep alone, of integers",
        "ARG-4",
        **claiming(
            "keep",
            run=calling(keep=lambda c: None if c.keep is None else np.asarray(c.keep).astype(bool)),
        ),
    ),
    mutant(
        "keep before key",
        "ARG-4",
        run=calling(key=lambda c: c.key if c.keep is None else None),
    ),
    mutant(
        "words cut to 32 bits",
        "ARG-5",
        run=calling(
            key=lambda c: (
                c.key.astype(np.uint32)
                if getattr(c.key, "dtype", None) == np.int64 and c.key.shape == (2,)
                else c.key
            )
        ),
    ),
    mutant(
        "the first two words of a key",
        "ARG-5",
        run=calling(key=lambda c: c.key if np.ndim(c.key) != 1 else c.key[:2]),
    ),
    mutant(
        "stateless, and without a key it is key 0",
        "ARG-5",
        **claiming(
            "stateless",
            run=calling(
                seed=lambda c: 0 if c.seed is None and c.training and c.keep is None else c.seed
            ),
        ),
    ),
    mutant("a refused call draws", "ARG-5", **spending()),
)
