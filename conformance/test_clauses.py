"""The suite under pytest: one test for each clause and backend, one for each pair of backends.

Installed with the package, unlike the tests of the suite itself:
`python -m pytest --pyargs conformance -p conformance.pytest_options --backend torch`.
"""

from functools import cache
from itertools import combinations

import pytest

from conformance.check import Subject
from conformance.clauses import CHECK_OF
from conformance.cross import cross_check
from conformance.loading import installed, load
from conformance.protocol import BrokenAdapter, NotTaken
from conformance.runner import Verdict, verdict_on, whole


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each backend and clause, and one for each pair of backends."""
    names = metafunc.config.getoption("--backend", None) or installed()
    if "clause" in metafunc.fixturenames:
        cases = [(name, clause) for name in names for clause in CHECK_OF]
        metafunc.parametrize(("backend", "clause"), cases)
    else:
        metafunc.parametrize("pair", [*combinations(names, 2)], ids=" x ".join)


@cache
def loaded(name: str, device: str | None) -> Subject | Exception:
    """Return the backend, in a process of its own, or why there is none: it is tried only once."""
    try:
        backend = load(name, **({"device": device} if device else {}))
    except (BrokenAdapter, NotTaken) as error:
        return error
    return Subject(backend, backend.info())


def subject_of(name: str, config: pytest.Config) -> Subject:
    """Return the loaded backend; of those by default, the reference has no device."""
    named = config.getoption("--backend", None)
    asked = config.getoption("--device", None) if named or name != "reference" else None
    subject = loaded(name, asked)
    if isinstance(subject, Exception):
        raise subject
    return subject


def told(verdict: Verdict) -> str:
    """Return the findings as text."""
    return "\n".join(f"{f.case}: want {f.want}, got {f.got}" for f in verdict.findings)


def test_a_backend_keeps_a_clause(backend: str, clause: str, pytestconfig: pytest.Config) -> None:
    """Skipped where the clause's subject is not claimed."""
    subject = subject_of(backend, pytestconfig)
    verdict = verdict_on(whole(CHECK_OF[clause]), subject)
    if verdict.untested:
        pytest.skip(verdict.untested)
    assert not verdict.findings, told(verdict)


def test_two_backends_agree_bit_for_bit(pair: tuple[str, str], pytestconfig: pytest.Config) -> None:
    """Skipped where one of them takes no key."""
    subjects = [subject_of(name, pytestconfig) for name in pair]
    if not all("keyed" in subject.info.claims for subject in subjects):
        pytest.skip("no claim of keyed")
    report = cross_check(pair, subjects[0].backend, subjects[1].backend)
    assert report.conforms, "\n".join(told(verdict) for verdict in report.verdicts)
