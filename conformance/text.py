"""Text that others wrote, as a report may show it."""


def visible(text: str) -> str:
    r"""Return the text with each character that does not print as its escape.

    So no name and no message of an adapter moves the cursor, ends a line or spoils a file.

    >>> print(visible("\x1b[31mred\n"))
    \x1b[31mred\n
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def text_of(error: BaseException) -> str:
    """Return what an exception says, or nothing where it cannot say it."""
    try:
        return str(error)
    except Exception:
        return ""


def one_line(error: BaseException) -> str:
    """Return what an exception says in one line, or else the name of its type."""
    return visible(" ".join(text_of(error).split())) or type(error).__name__


def first_line(error: BaseException) -> str:
    """Return the name of an exception's type, and the first line of what it says."""
    return f"{type(error).__name__}: {text_of(error)}".splitlines()[0]
