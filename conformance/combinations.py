"""The combinations as part of the checks: what they say of each clause, and each minimal case.

Each row of factors.py is called once for a subject, and its parts are compared under the clauses
that they break (exact.py). A row that fails is made as plain as it can be while it still fails.
"""

from collections.abc import Iterator

from conformance.check import Finding, Results, Subject
from conformance.covering import Row
from conformance.exact import Judgements, judged, serves
from conformance.factors import is_defined, plain, rows

FEW = 3  # rows that are made plain for a clause: of the same factors, one is told


def results(clause: str, subject: Subject) -> Results:
    """Yield what the combinations say of a clause: of those that fail, a few minimal cases."""
    wrong, count = list[Row](), 0
    for row, found in _judgements(clause, subject):
        mine = [result for of, result in found if of == clause]
        count += bool(mine)
        if any(isinstance(result, Finding) for result in mine):
            wrong.append(row)
        else:
            yield from mine
    tried, told = list[Row](), set[frozenset[str]]()
    for row in wrong:
        if len(tried) < FEW and not any(_holds(row, least, subject) for least in tried):
            least, finding = minimal(clause, subject, row)
            tried.append(least)
            case = f"{len(wrong)} of {count} combinations fail; {finding.case}"
            if not_plain(subject, least) not in told:
                yield Finding(case, finding.want, finding.got, finding.steps)
            told.add(not_plain(subject, least))


def _judgements(clause: str, subject: Subject) -> Iterator[tuple[Row, Judgements]]:
    """Yield the rows that serve a clause, each with what is said of it; no row is called twice."""
    if "rows" not in subject.memory:
        made = [(row, serves(subject, row), list[Judgements]()) for row in rows(subject)]
        subject.memory["rows"] = made
    for row, served, found in subject.memory["rows"]:
        if clause in served:
            found += [] if found else [judged(subject, row)]
            yield row, found[0]


def minimal(clause: str, subject: Subject, row: Row) -> tuple[Row, Finding]:
    """Return a row as plain as it can be while it breaks the clause, and what it breaks there.

    Each factor is tried at its plain value, twice: less than 30 calls.
    """
    found, first = _finding(clause, judged(subject, row)), plain(subject)
    for factor in [*row, *row]:
        plainer = {**row, factor: first[factor]}
        if plainer != row and is_defined(plainer):
            still = _finding(clause, judged(subject, plainer))
            row, found = (plainer, still) if still else (row, found)
    return row, found or Finding("not again", "the same outcome twice", "another one")


def not_plain(subject: Subject, row: Row) -> frozenset[str]:
    """Return the factors of a row whose value is not plain."""
    first = plain(subject)
    return frozenset(factor for factor, value in row.items() if value != first[factor])


def _finding(clause: str, found: Judgements) -> Finding | None:
    mine = [result for of, result in found if of == clause]
    return next((result for result in mine if isinstance(result, Finding)), None)


def _holds(row: Row, least: Row, subject: Subject) -> bool:
    """Return whether a row has all that is not plain in a minimal case, and fails as that does."""
    return all(row[factor] == least[factor] for factor in not_plain(subject, least))
