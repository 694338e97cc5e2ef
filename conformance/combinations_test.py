"""The combinations: a fault in two factors is found, and told as these two; nothing else is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conformance import combinations
from conformance.check import Finding, Subject
from conformance.clauses import CHECK_OF, CHECKS
from conformance.exact import judged, serves
from conformance.factors import rows, values
from conformance.mutant import REFERENCE, answering, calling, compiling, mutant
from conformance.protocol import BrokenAdapter, Info, Outcome
from conformance.runner import verdict_on, whole

DOCS = Path(__file__).parents[1] / "docs" / "conformance.md"


def subject_of(**parts):
    backend = mutant("planted", "", **parts).backend()
    return Subject(backend, backend.info())


def findings(clause, subject):
    return [r for r in combinations.results(clause, subject) if isinstance(r, Finding)]


def cases(clause, subject):
    """The factors of the minimal cases of a clause."""
    told = [finding.case.split("combinations fail; ")[1] for finding in findings(clause, subject)]
    return {
        ", ".join(part.partition(":")[0] for part in case.split("; ") if ": " in part)
        for case in told
    }


def without(call, *names):
    return {k: v for k, v in call.options.items() if k not in names}


def axis_loses_groups(call):
    return without(call, "groups") if call.options.get("axis") else call.options


def low_word_for_bfloat16(call):
    offset = call.options.get("offset", 0)
    short = {**call.options, "offset": offset % 2**32}
    return short if call.dtype == "bfloat16" and call.options.get("mode") is None else call.options


def keep_in_evaluation(call):
    return call.training or (call.keep is not None and call.op == "residual")


def twice_in_float16(call, outcome):
    late = call.options.get("scale_at") == "eval" and call.dtype == "float16"
    return outcome.y * 2 if late and call.op == "drop_path" and call.training else outcome.y


def times_zero(call, outcome):
    """dx of dropped rows multiplied by 0, from 65 rows on."""
    if call.dy is None or call.op == "residual" or call.x.shape[0] < 65:
        return outcome.dx
    return outcome.dx + call.dy * 0


def float32_with_minus_1(call, outcome):
    low = call.dtype in ("float16", "bfloat16") and call.options.get("axis") == -1
    return "float32" if low else outcome.dtype


@pytest.mark.parametrize(
    ("parts", "clause", "factors"),
    [
        ({"run": calling(options=axis_loses_groups)}, "KEY-4", {"mode, axis"}),
        ({"run": calling(options=low_word_for_bfloat16)}, "KEY-6", {"offset, dtype"}),
        ({"run": calling(training=keep_in_evaluation)}, "RES-1", {"op, phase"}),
        ({"run": answering(y=twice_in_float16)}, "SCALE-3", {"scale, dtype"}),
        ({"run": answering(dx=times_zero)}, "GRAD-1", {"batch, gradient"}),
        ({"run": answering(dtype=float32_with_minus_1)}, "TYPE-1", {"axis, dtype"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_in_two_factors_is_told_as_these_two(parts, clause, factors):
    subject = subject_of(**parts)
    assert cases(clause, subject) == factors
    assert len(findings(clause, subject)) <= combinations.FEW


def test_a_fault_of_compiled_programs_is_told_of_comp_1_alone():
    def answer(call, outcome):
        return (
            replace(outcome, y=-outcome.y) if call.compiled and call.keep is not None else outcome
        )

    subject = subject_of(**compiling(answer))
    assert cases("COMP-1", subject) == {"phase, how"}
    others = [check.clause for check in CHECKS if check.clause != "COMP-1"]
    assert [clause for clause in others if findings(clause, subject)] == []


def test_a_fault_of_every_call_is_not_told_of_compiled_programs_or_shards():
    subject = subject_of(**compiling(lambda call, outcome: replace(outcome, y=-outcome.y)))
    assert cases("SCALE-1", subject) == {""}
    assert not findings("COMP-1", subject)
    assert not findings("DIST-1", subject)


def test_a_call_that_raises_is_told_once():
    def run(call):
        if call.options.get("axis") == -2:
            raise IndexError("axis")
        return REFERENCE.run(call)

    subject = subject_of(run=run)
    told = {check.clause: findings(check.clause, subject) for check in CHECKS}
    assert {f.got for found in told.values() for f in found} == {"IndexError: axis"}
    row = next(row for row in rows(subject) if row["axis"] == "-2 of 4")
    assert len(judged(subject, row)) == 1


def test_an_adapter_that_is_broken_is_told_as_such():
    def run(call):
        return Outcome(np.zeros(1, np.float32))

    with pytest.raises(BrokenAdapter, match="float64"):
        list(combinations.results("SCALE-1", subject_of(run=run)))


def test_the_reference_passes_and_each_call_is_made_once():
    made = []

    def run(call):
        made.append(call)
        return REFERENCE.run(call)

    subject = subject_of(run=run)
    compared = [r for check in CHECKS for r in combinations.results(check.clause, subject)]
    assert set(compared) == {None}
    assert len(compared) > 3000
    # a call of 2 shards is one here: the reference splits it itself
    assert len(made) == len(rows(subject))


def test_every_clause_that_a_row_serves_is_one():
    subject = subject_of()
    served = {clause for row in rows(subject) for clause in serves(subject, row)}
    assert served <= set(CHECK_OF)


def test_what_is_not_claimed_is_not_asked_for():
    asked = []

    class Bare:
        def info(self):
            return Info("bare", frozenset(), ("float16",))

        def run(self, call):
            asked.append(call)
            return REFERENCE.run(call)

    subject = Subject(Bare(), Bare().info())
    assert not findings("SCALE-1", subject)
    list(combinations.results("TYPE-2", subject))
    assert len(asked) > 40
    assert {call.dtype for call in asked} == {"float16"}
    assert not any(
        call.options or call.dy is not None or call.key is not None or call.keep is not None
        for call in asked
    )
    assert {call.seed for call in asked if call.training} == {0, 1, 2}


def test_a_black_box_is_held_to_the_form_of_its_masks():
    claims = REFERENCE.info().claims - {"keyed", "stateless", "shard"}
    info = replace(REFERENCE.info(), claims=claims)
    subject = subject_of(info=lambda: info)
    assert values(subject)["offset"] == ["0"]
    for clause in ("MASK-1", "MASK-3", "MASK-5", "BAL-1", "RES-7"):
        results = [*combinations.results(clause, subject)]
        assert set(results) == {None}
        assert len(results) > 20


def test_a_check_with_vectors_and_combinations_runs_all():
    subject = subject_of()
    alone, more = CHECK_OF["SCALE-2"], [*combinations.results("SCALE-2", subject)]
    assert len(more) > 20
    cases = verdict_on(whole(alone), subject).cases
    assert cases > verdict_on(alone, subject).cases + len(more)


def test_docs_conformance_says_how_many_calls_there_are():
    text = " ".join(DOCS.read_text(encoding="utf-8").split())
    info = REFERENCE.info()
    torch = replace(info, claims=info.claims | {"recompute", "compile"})
    bare = Info("my NumPy DropPath", frozenset(), ("float32", "float64"))
    counts = [
        len(rows(Subject(REFERENCE, each)))
        for each in (info, torch, bare, replace(torch, compiles=True))
    ]
    said = "These are {} calls for the reference, {} for PyTorch, and {} for the DropPath above."
    assert said.format(*counts[:3]) in text
    assert f"then there are fewer, {counts[3]} for JAX." in text
