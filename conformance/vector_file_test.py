"""The files of vectors tested: what is cut short, changed or unknown is refused or found."""

import json

import pytest
from jsonschema import Draft202012Validator

from conformance.check import Subject
from conformance.golden import FILES, compare, digest, load
from conformance.loading import load as load_backend
from conformance.vector_file import FOLDER

REFERENCE = load_backend("reference")
SUBJECT = Subject(REFERENCE, REFERENCE.info())
VECTORS = load()
BY_ID = {vector.id: vector for vector in VECTORS}


@pytest.fixture
def changed(tmp_path):
    """Copies the files, one of them changed by a function of its text; returns their folder."""

    def change(file, edit):
        for name in FILES:
            text = (FOLDER / "v1" / f"{name}.json").read_text(encoding="utf-8")
            new = edit(text) if name == file else text
            assert (new != text) == (name == file)
            (tmp_path / f"{name}.json").write_text(new, encoding="utf-8")
        return tmp_path

    return change


def test_a_changed_bit_in_a_file_is_found(changed):
    assert BY_ID["apply/float64/p0.1/scale"].want[0, 1].hex() == "0x1.538d26c03d247p-3"
    folder = changed("apply", lambda text: text.replace("538d26c03d247p-3", "538d26c03d246p-3"))
    found = [finding for v in load(folder) if (finding := compare(v, SUBJECT))]
    assert [f.case for f in found] == ["vector apply/float64/p0.1/scale, at [0, 1], 1 of 12 differ"]
    assert digest(folder) != digest()


def test_the_digest_is_that_of_the_bytes(changed):
    assert len(digest()) == 12
    assert int(digest(), 16) >= 0
    assert digest(changed("masks", lambda text: text + " ")) != digest()


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


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.999])
def test_a_file_that_is_cut_short_is_refused(changed, file, part):
    folder = changed(file, lambda text: text[: int(len(text.rstrip()) * part)])
    assert refusal(folder).startswith(f"{file}.json: must be JSON to its end, got ")


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5])
def test_an_unknown_version_is_refused(changed, version):
    folder = changed("keys", edited(lambda data: data.update(version=version)))
    assert refusal(folder) == f"keys.json: version must be 1, got {version!r}"


@pytest.mark.parametrize(
    ("file", "where", "place"),
    [
        ("edge", lambda data: data, "the file"),
        ("apply", lambda data: data["vectors"][3], "vectors[3]"),
        ("schedules", lambda data: data["vectors"][0]["options"], "vectors[0].options"),
        ("keys", lambda data: data["vectors"][1]["want"], "vectors[1].want"),
    ],
)
def test_an_unknown_key_is_refused(changed, file, where, place):
    folder = changed(file, edited(lambda data: where(data).update(colour="red")))
    assert refusal(folder) == f"{file}.json: {place}: unknown key 'colour'"


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


def test_the_schema_is_one_and_allows_nothing_further():
    schema = json.loads((FOLDER / "schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    objects = [schema, *(v for v in schema["$defs"].values() if v.get("type") == "object")]
    assert len(objects) == 4
    assert all(found["additionalProperties"] is False for found in objects)
