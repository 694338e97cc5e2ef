"""SCHED: rates over depth and over training."""

import numpy as np

import droppath
from conformance.check import Results, Subject, check, holds
from conformance.protocol import Array, Call

# For L = 4 blocks at 0.3, by hand.
BY_HAND = {
    "linear": [0.0, 0.1, 0.2, 0.3],
    "paper": [0.075, 0.15, 0.225, 0.3],
    "exclusive": [0.0, 0.075, 0.15, 0.225],
    "uniform": [0.3, 0.3, 0.3, 0.3],
}


def rates(subject: Subject, rule: str, depth: int | list[int], rate: float = 0.3) -> Array:
    """Return drop_path_rates, flat."""
    options = {"drop_path_rate": rate, "depth": depth, "rule": rule}
    return subject.run(Call(op="drop_path_rates", options=options)).y


@check("SCHED-1", needs=("schedule",))
def rules_over_depth(subject: Subject) -> Results:
    for rule, want in BY_HAND.items():
        got = rates(subject, rule, 4)
        near = got.shape == (4,) and bool(np.abs(got - want).max() <= 1e-12)
        yield holds(rule, near, str(want), got)
    for rule in ("linear", "paper"):
        for depth in (3, 12, 54):
            last = rates(subject, rule, depth, 0.1)[-1]
            yield holds(f"{rule}, L={depth}, last", last == 0.1, "0.1", last)


@check("SCHED-2", needs=("schedule",))
def short_models(subject: Subject) -> Results:
    for rule, one in (("linear", 0.3), ("paper", 0.3), ("exclusive", 0.0), ("uniform", 0.3)):
        yield holds(f"{rule}, L=0", rates(subject, rule, 0).size == 0, "no rates", "some")
        got = rates(subject, rule, 1)
        yield holds(f"{rule}, L=1", got.tolist() == [one], str([one]), got)


@check("SCHED-3", needs=("schedule",))
def stages_nest(subject: Subject) -> Results:
    for rule, want in BY_HAND.items():
        got = rates(subject, rule, [2, 2])
        near = got.shape == (2, 2) and bool(np.abs(got.reshape(-1) - want).max() <= 1e-12)
        yield holds(rule, near, f"{want[:2]}, {want[2:]}", got)


@check("SCHED-4", needs=("schedule",))
def ramps_land(subject: Subject) -> Results:
    at = np.array([-1.0, 2.0, 2.0 + 1e-9, 6.0, 10.0 - 1e-9, 10.0, 99.0, 4.0])
    for shape in ("linear", "cosine"):
        options = {"step": at, "begin": 2, "end": 10, "start": 0.05, "stop": 0.3, "shape": shape}
        y = subject.run(Call(op="ramp", options=options)).y
        yield holds(f"{shape}, before", y[0] == y[1] == 0.05, "0.05", y[:2])
        yield holds(f"{shape}, after", y[5] == y[6] == 0.3, "0.3", y[5:7])
        yield holds(f"{shape}, middle", abs(y[3] - 0.175) < 1e-12, "0.175", y[3])
        quarter = 0.05 + 0.25 * {"linear": 0.25, "cosine": (1 - 0.5**0.5) / 2}[shape]
        yield holds(f"{shape}, quarter", abs(y[7] - quarter) < 1e-12, str(quarter), y[7])
        jump = max(abs(y[2] - 0.05), abs(y[4] - 0.3))
        yield holds(f"{shape}, ends", jump < 1e-9, "no jump", jump)


@check("SCHED-5", needs=("schedule",))
def depth_is_expected(subject: Subject) -> Results:
    paper = droppath.drop_path_rates(0.5, 54, rule="paper")
    got = float(subject.run(Call(op="expected_depth", options={"rates": paper})).y)
    yield holds("L=54, p_L=0.5, paper", abs(got - 40.25) < 1e-9, "40.25", got)
