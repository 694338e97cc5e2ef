"""The clauses of SPEC.md: for each area a file of checks, and one of mutants that they must reject.

The areas and their checks stand in the order of SPEC.md, whatever is imported first. Not here: the
mutants, which are for the tests alone.
"""

from conformance.check import Check
from conformance.clauses import (
    arg,
    bal,
    comp,
    dist,
    drop,
    eval,
    grad,
    key,
    mask,
    plan,
    pure,
    res,
    scale,
    sched,
    stack,
    type,
)

AREAS = {
    "ARG": arg,
    "EVAL": eval,
    "MASK": mask,
    "SCALE": scale,
    "DROP": drop,
    "GRAD": grad,
    "TYPE": type,
    "PURE": pure,
    "KEY": key,
    "BAL": bal,
    "RES": res,
    "SCHED": sched,
    "PLAN": plan,
    "STACK": stack,
    "COMP": comp,
    "DIST": dist,
}
CHECKS = tuple(
    found for area in AREAS.values() for found in vars(area).values() if isinstance(found, Check)
)
CHECK_OF = {check.clause: check for check in CHECKS}


def file_of(clause: str) -> str:
    """Return the file that holds the check of a clause, from the root of the project."""
    return CHECK_OF[clause].test.__module__.replace(".", "/") + ".py"
