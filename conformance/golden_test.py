"""The golden vectors tested: the reference has them all, and nothing wrong passes."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from conformance import golden
from conformance.checks import CHECKS, Subject
from conformance.golden import AREAS, FOLDER, checks, compare, digest, load
from conformance.numerics import compute_type, product, round_to, step
from conformance.protocol import CAPABILITIES, Call, Info, Outcome
from conformance.runner import load as load_backend
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


def test_a_check_with_vectors_runs_both():
    (alone,) = [check for check in CHECKS if check.clause == "SCALE-2"]
    both = verdict_on(golden.with_vectors(alone), SUBJECT)
    vectors = sum(vector.clause == "SCALE-2" for vector in VECTORS)
    assert vectors
    assert both.cases == verdict_on(alone, SUBJECT).cases + vectors


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


@pytest.mark.parametrize("area", AREAS)
def test_a_value_that_is_wrong_by_a_little_is_found(area):
    some = [v for v in VECTORS if v.id.startswith(f"{area}/") and v.want.size]
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


def test_a_changed_bit_in_a_file_is_found(changed):
    assert BY_ID["apply/float64/p0.1/scale"].want[0, 1].hex() == "0x1.538d26c03d247p-3"
    folder = changed("apply", lambda text: text.replace("538d26c03d247p-3", "538d26c03d246p-3"))
    found = [finding for v in load(folder) if (finding := compare(v, SUBJECT))]
    assert [f.case for f in found] == ["vector apply/float64/p0.1/scale, at [0, 1], 1 of 12 differ"]
    assert digest(folder) != digest()


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


@pytest.fixture
def changed(tmp_path):
    """Copies the files, one of them changed by a function of its text; returns their folder."""

    def change(area, edit):
        for name in AREAS:
            text = (FOLDER / "v1" / f"{name}.json").read_text(encoding="utf-8")
            new = edit(text) if name == area else text
            assert (new != text) == (name == area)
            (tmp_path / f"{name}.json").write_text(new, encoding="utf-8")
        return tmp_path

    return change


def edited(edit):
    """An edit of the data as an edit of the text."""

    def change(text):
        data = json.loads(text)
        edit(data)
        return json.dumps(data)

    return change


def refusal(folder):
    with pytest.raises(ValueError) as caught:
        load(folder)
    return str(caught.value)


@pytest.mark.parametrize("area", AREAS)
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_refused(changed, area, part):
    folder = changed(area, lambda text: text[: int(len(text.rstrip()) * part)])
    assert refusal(folder).startswith(f"{area}.json: must be JSON to its end, got ")


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5])
def test_an_unknown_version_is_refused(changed, version):
    folder = changed("keys", edited(lambda data: data.update(version=version)))
    assert refusal(folder) == f"keys.json: version must be 1, got {version!r}"


@pytest.mark.parametrize(
    ("area", "where", "place"),
    [
        ("edge", lambda data: data, "the file"),
        ("apply", lambda data: data["vectors"][3], "vectors[3]"),
        ("schedules", lambda data: data["vectors"][0]["options"], "vectors[0].options"),
        ("keys", lambda data: data["vectors"][1]["want"], "vectors[1].want"),
    ],
)
def test_an_unknown_key_is_refused(changed, area, where, place):
    folder = changed(area, edited(lambda data: where(data).update(colour="red")))
    assert refusal(folder) == f"{area}.json: {place}: unknown key 'colour'"


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (
            lambda d: d["vectors"].pop(),
            "masks.json: must hold {n} of 'masks', got area 'masks' and",
        ),
        (lambda d: d.update(area="keys"), "masks.json: must hold {n} of 'masks', got area 'keys'"),
        (lambda d: d["vectors"][0].pop("why"), "masks.json: vectors[0]: 'why' is a required"),
        (lambda d: d["vectors"][0].pop("key"), "masks.json: vectors[0]: 'key' is a required"),
        (lambda d: d["vectors"][0].update(shape=[32]), "masks.json: masks/row/b33/p0.0: cannot"),
        (lambda d: d["vectors"][0].update(steps=-1), "masks.json: vectors[0].steps: -1 is less"),
        (lambda d: d["vectors"][0].update(drop_prob="0.1"), "masks.json: vectors[0].drop_prob: "),
        (lambda d: d["vectors"][0]["want"].clear(), "masks.json: vectors[0].want: "),
        (
            lambda d: d["vectors"][1].update(id="masks/row/b33/p0.0"),
            "ids must be unique, got twice",
        ),
    ],
)
def test_a_file_that_says_something_else_is_refused(changed, edit, text):
    count = sum(vector.id.startswith("masks/") for vector in VECTORS)
    message = refusal(changed("masks", edited(edit)))
    assert message.startswith(text.format(n=count)), message


def test_a_missing_file_is_refused(changed):
    folder = changed("keys", lambda text: text + " ")
    (folder / "keys.json").unlink()
    assert refusal(folder) == "keys.json: must exist, is missing"


def test_the_digest_is_that_of_the_bytes(changed):
    assert len(digest()) == 12
    assert int(digest(), 16) >= 0
    assert digest(changed("masks", lambda text: text + " ")) != digest()


def test_the_schema_is_one_and_allows_nothing_further():
    schema = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    objects = [schema, *(v for v in schema["$defs"].values() if v.get("type") == "object")]
    assert len(objects) == 4
    assert all(found["additionalProperties"] is False for found in objects)
