"""Reports for every reader, of text that others wrote."""

import json
from io import StringIO

import pytest
from rich.console import Console

from conformance.adapters.reference import Reference
from conformance.page import to_html
from conformance.protocol import Info
from conformance.report import matrix, print_report, to_json, to_markdown
from conformance.runner import run_checks

NAME = "a|b`c<b>\x1b[31m\n| d \ud800\u202e[x](y)\\|"


class Odd(Reference):
    def info(self):
        return Info(NAME)

    def run(self, call):
        raise ValueError(f"{NAME} was refused")


@pytest.fixture(scope="module")
def report():
    return run_checks(NAME, Odd(), ("TYPE-1", "TYPE-2"))


def test_a_terminal_gets_nothing_that_it_obeys(report):
    shown = StringIO()
    console = Console(file=shown, width=200)
    print_report(report, console)
    console.print(matrix([report]))
    assert {c for c in shown.getvalue() if not c.isprintable()} == {"\n"}
    assert r"a|b`c<b>\x1b[31m\n| d \ud800\u202e[x](y)" in shown.getvalue()
    assert r"ValueError: a|b`c<b>\x1b[31m" in shown.getvalue()


def test_a_name_cannot_break_the_table_in_markdown(report):
    head, rule, row, *rest = to_markdown([report]).splitlines()
    cells = [line.replace("\\\\", "").replace(r"\|", "").count("|") for line in (head, rule, row)]
    assert len({*cells}) == 1
    assert row.startswith(r"| a\|b\`c\<b\>\\x1b\[31m\\n\| d \\ud800\\u202e\[x\](y)\\\| |")
    assert [line for line in rest if NAME[:3] in line] == []


def test_json_and_html_are_text_that_any_reader_takes(report):
    (read,) = json.loads(to_json([report]))["reports"]
    assert read["name"].encode() == rb"a|b`c<b>\x1b[31m\n| d \ud800\u202e[x](y)" + b"\\|"
    assert read["verdicts"][0]["findings"][0]["got"].encode()
    page = to_html([report]).encode().decode()
    assert "c&lt;b&gt;" in page
    assert "<b>\\x1b" not in page
