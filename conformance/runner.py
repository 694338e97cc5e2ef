"""Runs the checks on a backend: the verdict on each clause, and the report on all.

Not here: how a backend is found and loaded (loading.py), and how a report looks (report.py).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from conformance import golden
from conformance.check import Check, Finding, Subject
from conformance.clauses import CHECKS
from conformance.loading import deadline
from conformance.protocol import Backend, BrokenAdapter, Info


@dataclass(frozen=True)
class Verdict:
    """What became of one clause: the cases compared, and those that do not hold.

    untested: the claim for want of which nothing was compared. known: the reason why a failure is
    expected; then it does not count, and a pass does.
    """

    clause: str
    cases: int
    findings: tuple[Finding, ...] = ()
    untested: str = ""
    known: str = ""

    @property
    def result(self) -> str:
        """One of "pass", "FAIL", "known" and "not tested"."""
        if self.findings:
            return "known" if self.known else "FAIL"
        return "not tested" if self.untested else "pass"


@dataclass(frozen=True)
class Report:
    """The verdicts on one backend, or on one pair of them, by the name of the adapter."""

    backend: str
    info: Info
    verdicts: tuple[Verdict, ...]

    @property
    def conforms(self) -> bool:
        """Whether something was compared and nothing failed."""
        results = [verdict.result for verdict in self.verdicts]
        return "FAIL" not in results and any(result != "not tested" for result in results)


def run_checks(
    name: str,
    backend: Backend,
    clauses: tuple[str, ...] = (),
    done: Callable[[], None] = lambda: None,
) -> Report:
    """Return the report on a backend, on all clauses or some; done() follows each check."""
    subject = Subject(backend, backend.info())
    verdicts = []
    for check in CHECKS:
        if not clauses or check.clause in clauses:
            verdicts.append(verdict_on(golden.with_vectors(check), subject))
            done()
    return Report(name, subject.info, tuple(verdicts))


def verdict_on(check: Check, subject: Subject) -> Verdict:
    """Return what becomes of one check."""
    missing = [claim for claim in check.needs if claim not in subject.info.claims]
    if missing:
        return Verdict(check.clause, 0, untested=missing[0])
    try:
        with deadline():
            return collect(check.clause, check.test(subject))
    except BrokenAdapter as error:
        raise BrokenAdapter(f"{subject.info.name}: {check.clause}: {error}") from error


def collect(clause: str, results: Iterator[Finding | None]) -> Verdict:
    """Return the verdict on what a check yields."""
    cases, findings = 0, []
    try:
        for finding in results:
            cases += 1
            findings += [finding] if finding else []
    except BrokenAdapter:
        raise
    except Exception as error:  # the implementation's own: what was asked must work
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        findings.append(Finding(f"case {cases + 1}", "a result", reason))
    if not cases and not findings:
        findings.append(Finding("all", "a comparison", "none"))
    return Verdict(clause, cases, tuple(findings))


def expect(report: Report, known: dict[str, str]) -> Report:
    """Return the report with the known failures marked; one that passes becomes a failure."""
    verdicts = [
        replace(
            verdict,
            known=known.get(verdict.clause, "") if verdict.findings else "",
            findings=verdict.findings or _unexpected(verdict, known),
        )
        for verdict in report.verdicts
    ]
    return replace(report, verdicts=tuple(verdicts))


def _unexpected(verdict: Verdict, known: dict[str, str]) -> tuple[Finding, ...]:
    if verdict.clause not in known:
        return ()
    got = "not tested" if verdict.untested else "pass"
    return (Finding("known failure", f"a failure: {known[verdict.clause]}", got),)
