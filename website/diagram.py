"""A flowchart in Mermaid's words as a table: each room, what it is, and what its arrows lead to.

Mermaid itself draws it where the repository is read. It is a script of three megabytes, and the
site loads none. Not here: anything but nodes `a["name: what"]` and arrows `a --> b`.
"""

import re
from html import escape

NODE = re.compile(r'(\w+)\["(.*?)"\]')
ARROW = re.compile(r"^ *(\w+)(?:\[.*?\])? --> (\w+)", re.MULTILINE)


def diagram(source: str) -> str:
    """Return the table as HTML, the rooms in their order."""
    what = dict(NODE.findall(source))
    leads: dict[str, list[str]] = {name: [] for name in what}
    for room, other in ARROW.findall(source):
        leads[room].append(other)
    rows = "".join(_row(what[room], [_name(what[o]) for o in leads[room]]) for room in what)
    head = "<tr><th>room</th><th>what</th><th>arrows to</th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _name(label: str) -> str:
    return label.split(": ")[0]


def _row(label: str, others: list[str]) -> str:
    name, _, about = label.partition(": ")
    arrows = ", ".join(f"<code>{escape(other)}</code>" for other in others)
    return (
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(about)}</td>"
        f"<td>{'→ ' if arrows else ''}{arrows}</td></tr>"
    )
