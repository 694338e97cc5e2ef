"""The golden vectors tested: the reference has them all, and nothing wrong passes."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from conformance import golden
from conformance.check import Subject
from conformance.clauses import CHECKS
from conformance.golden import FILES, checks, compare, load
from conformance.loading import load as load_backend
from conformance.numerics import compute_type, product, round_to, step
from conformance.protocol import CAPABILITIES, Call, Info, Outcome
from conformance.runner import verdict_on

REFERENCE = load_backend("reference")
SUBJECT = Subject(REFERENCE, REFERENCE.info())
VECTORS = load()
BY_ID = {vector.id: vector for vector in VECTORS}
NEEDS = {check.clause: set(check.needs) for check in CHECKS}


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.clause)
def test_the_reference_has_every_vector(check):
    verdict = verdict_on(check, SUBJECT)
    assert verdict.findings == ()
    assert verdict.cases == sum(vector.clause == check.clause for vector in VECTORS)


def test_every_vector_is_in_one_check():
    clauses = [check.clause for check in checks()]
    assert len(set(clauses)) == len(clauses) > 20
    assert {vector.clause for vector in VECTORS} == set(clauses) <= set(NEEDS)


@dataclass(frozen=True)
class Spoiler:
    """Writes into what it is given, once it has answered."""

    def info(self) -> Info:
        return REFERENCE.info()

    def run(self, call: Call) -> Outcome:
        outcome = REFERENCE.run(call)
        call.x[...] = np.nan
        return outcome


def test_an_implementation_that_writes_into_x_does_not_spoil_the_vectors():
    vector = BY_ID["apply/float32/p0.1/scale"]
    for _ in range(2):
        assert compare(vector, Subject(Spoiler(), SUBJECT.info)) is None


def test_a_vector_claims_what_its_clause_needs():
    for vector in VECTORS:
        assert NEEDS[vector.clause] <= vector.claims <= set(CAPABILITIES), vector.id


def wrong_by_a_little(vector):
    """The vector with one value wrong by the least that its tolerance does not grant."""
    want, at = vector.want.copy(), np.unravel_index(0, vector.want.shape or (1,))
    finite = np.flatnonzero(np.isfinite(want))
    at = finite[-1] if finite.size else 0
    value = want.reshape(-1)[at]
    if vector.kind in ("keep", "dropped"):
        wrong = 1 - value
    elif vector.kind in ("words", "count"):
        wrong = value + 1
    else:
        grant = 0.0 if vector.absolute is None else vector.absolute.reshape(-1)[at]
        wrong = value + grant * 1.01 + (vector.steps + 1) * step(value, vector.dtype)
    want.reshape(-1)[at] = wrong
    return replace(vector, want=want)


@pytest.mark.parametrize("file", FILES)
def test_a_value_that_is_wrong_by_a_little_is_found(file):
    some = [v for v in VECTORS if v.id.startswith(f"{file}/") and v.want.size]
    assert len(some) >= 20
    for vector in some:
        assert compare(vector, SUBJECT) is None, vector.id
        finding = compare(wrong_by_a_little(vector), SUBJECT)
        assert finding is not None, vector.id
        assert finding.case.startswith(f"vector {vector.id}, at ")


@pytest.mark.parametrize("name", ["edge/float32/empty", "schedules/rates/paper/l0"])
def test_an_empty_result_of_another_shape_is_found(name):
    vector = BY_ID[name]
    assert compare(vector, SUBJECT) is None
    other = replace(vector, want=np.zeros((*vector.want.shape, 2)))
    assert compare(other, SUBJECT).want == f"shape {other.want.shape}"


@dataclass(frozen=True)
class Wrong:
    """The reference with another formula for kept rows, for a mask that is given."""

    formula: object

    def info(self) -> Info:
        return REFERENCE.info()

    def run(self, call: Call) -> Outcome:
        outcome = REFERENCE.run(call)
        if call.keep is None or not call.training or call.options or call.drop_prob == 1:
            return outcome
        keep = call.keep.reshape(-1, *[1] * (call.x.ndim - 1))
        with np.errstate(all="ignore"):
            y = self.formula(call.x, keep, call.drop_prob, call.dtype)
            dx = (
                None if call.dy is None else self.formula(call.dy, keep, call.drop_prob, call.dtype)
            )
        return replace(outcome, y=y, dx=dx)


def kept(keep, y):
    return np.where(keep, y, 0.0)


def short_scale(x, keep, p, dtype):
    return kept(keep, product(x, float(round_to(1 / (1 - p), dtype)), dtype))


def scale_from_float32(x, keep, p, dtype):
    return kept(keep, product(x, float(1 / (np.float32(1) - np.float32(p))), dtype))


def division(x, keep, p, dtype):
    compute = np.dtype(compute_type(dtype)).type
    return kept(keep, product(x.astype(compute) / compute(1 - p), 1.0, dtype))


def select_by_multiplying(x, keep, p, dtype):
    return product(x, 1 / (1 - p), dtype) * keep


def scale_by_keep_prob(x, keep, p, dtype):
    return kept(keep, product(x, 1 - p, dtype))


def rounded_at_once(x, keep, p, dtype):
    if dtype in ("float64", "float32"):
        return kept(keep, product(x, 1 / (1 - p), dtype))
    # A product of 11 and 24 digits is exact in float64.
    y = round_to(x * float(np.float32(1 / (1 - p))), dtype)
    return kept(keep, product(y, 1.0, dtype))


def swapped(x, keep, p, dtype):
    return kept(~keep, product(x, 1 / (1 - p), dtype))


def saturating(x, keep, p, dtype):
    y = product(x, 1 / (1 - p), dtype)
    largest = {"float16": 65504.0, "bfloat16": 2.0**127 * (2 - 2**-7)}.get(dtype, np.inf)
    return kept(keep, np.where(np.isinf(x), y, np.clip(y, -largest, largest)))


@pytest.mark.parametrize(
    ("formula", "clauses"),
    [
        (short_scale, {"SCALE-1", "GRAD-1"}),
        (scale_from_float32, {"SCALE-1", "GRAD-1"}),
        (division, {"SCALE-1", "GRAD-1"}),
        (select_by_multiplying, {"SCALE-1", "GRAD-1", "DROP-1"}),
        (scale_by_keep_prob, {"SCALE-1", "GRAD-1", "DROP-1", "MASK-2"}),
        (rounded_at_once, {"SCALE-1"}),
        (swapped, {"SCALE-1", "GRAD-1", "DROP-1", "MASK-2"}),
        (saturating, {"SCALE-1"}),
    ],
)
def test_a_wrong_formula_is_rejected(formula, clauses):
    subject = Subject(Wrong(formula), SUBJECT.info)
    verdicts = [verdict_on(check, subject) for check in checks()]
    assert {verdict.clause for verdict in verdicts if verdict.findings} >= clauses
    assert not [f for v in verdicts for f in v.findings if f.want == "a result"]


def test_what_is_not_claimed_is_not_run():
    asked = []

    @dataclass(frozen=True)
    class Recorder:
        def info(self):
            return Info("recorder", frozenset({"keep"}), ("float16",))

        def run(self, call):
            asked.append(call)
            return REFERENCE.run(call)

    backend = Recorder()
    subject = Subject(backend, backend.info())
    for clause in NEEDS:
        assert [*golden.results(clause, subject)].count(None) == len(asked)
        asked.clear()
    for check in checks():
        list(golden.results(check.clause, subject))
    assert {call.dtype for call in asked} == {"float16"}
    assert not any(call.options or call.dy is not None or call.key is not None for call in asked)
    assert any(call.keep is None for call in asked)
