"""Runs the checks on a backend: the verdict on each clause, and the report on all.

Not here: how a backend is found and loaded (loading.py), and how a report looks (report.py).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain

from conformance import combinations, golden
from conformance.check import Check, Finding, Results, Subject, Untold
from conformance.clauses import CHECKS
from conformance.process import limit
from conformance.protocol import Backend, BrokenAdapter, Info
from conformance.text import first_line, visible

COMPILES = 4  # times as long may a check take where each shape is compiled


@dataclass(frozen=True)
class Verdict:
    """What became of one clause: the cases compared, and those that do not hold.

    untested: why there is no verdict, which is a claim or a field of Outcome that is missing.
    known: the reason why a failure is expected; then it does not count, and a pass does.
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
    """The verdicts on one backend, or on one pair of them, by the name of the adapter.

    complete: whether all checks that were asked for have run.
    """

    backend: str
    info: Info
    verdicts: tuple[Verdict, ...]
    complete: bool = True

    @property
    def conforms(self) -> bool:
        """Whether all was run, something was compared and nothing failed."""
        results = [verdict.result for verdict in self.verdicts]
        compared = any(result != "not tested" for result in results)
        return self.complete and compared and "FAIL" not in results

    @property
    def title(self) -> str:
        """What is tested, and whether the report on it is a part only."""
        return self.info.name if self.complete else f"{self.info.name} (interrupted, partial)"


def run_checks(
    name: str,
    backend: Backend,
    clauses: tuple[str, ...] = (),
    done: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Return the report on a backend, on all clauses or some.

    backend: loaded by its name (loading.py), it runs in a process of its own, and a check that
    hangs is ended. An object with the two methods runs in this one, and nothing ends its hang.
    done: is given the report so far after each check.
    """
    subject = Subject(backend, backend.info())
    info = replace(subject.info, name=visible(subject.info.name))
    report = Report(visible(name), info, (), complete=False)
    for check in CHECKS:
        if not clauses or check.clause in clauses:
            verdict = verdict_on(whole(check), subject)
            report = replace(report, verdicts=(*report.verdicts, verdict))
            done(report)
    return replace(report, complete=True)


def whole(check: Check) -> Check:
    """Return the check with its clause's vectors and combinations run after it."""
    more = golden.results, combinations.results
    of = check.clause
    return replace(check, test=lambda s: chain(check.test(s), *(each(of, s) for each in more)))


def verdict_on(check: Check, subject: Subject) -> Verdict:
    """Return what becomes of one check."""
    if missing := check.missing(subject.info.claims):
        return Verdict(check.clause, 0, untested=f"no claim of {missing}")
    try:
        with limit(subject.backend, COMPILES if subject.info.compiles else 1):
            return collect(check.clause, check.test(subject))
    except BrokenAdapter as error:
        raise BrokenAdapter(f"{subject.info.name}: {check.clause}: {error}") from error


def collect(clause: str, results: Results) -> Verdict:
    """Return the verdict on what a check yields."""
    cases, findings, untested = 0, list[Finding](), ""
    try:
        for result in results:
            if isinstance(result, Untold):
                untested = f"Outcome.{result.field} is None"
                continue
            cases += 1
            findings += [result] if result else []
    except BrokenAdapter:
        raise
    except Exception as error:  # the implementation's own: what was asked must work
        findings.append(Finding(f"case {cases + 1}", "a result", first_line(error)))
    if not cases and not findings and not untested:
        findings.append(Finding("all", "a comparison", "none"))
    shown = [
        replace(f, case=visible(f.case), want=visible(f.want), got=visible(f.got)) for f in findings
    ]
    return Verdict(clause, cases, tuple(shown), "" if findings else untested)


def expect(report: Report, known: dict[str, str]) -> Report:
    """Return the report with the known failures marked; one that passes becomes a failure."""
    verdicts = [
        replace(
            verdict,
            known=visible(known.get(verdict.clause, "")) if verdict.findings else "",
            findings=verdict.findings or _unexpected(verdict, known),
        )
        for verdict in report.verdicts
    ]
    return replace(report, verdicts=tuple(verdicts))


def _unexpected(verdict: Verdict, known: dict[str, str]) -> tuple[Finding, ...]:
    if verdict.clause not in known:
        return ()
    got = "not tested" if verdict.untested else "pass"
    return (Finding("known failure", f"a failure: {visible(known[verdict.clause])}", got),)
