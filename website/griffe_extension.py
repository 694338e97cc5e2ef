"""Gives mkdocstrings the docstrings as Markdown. Needs griffe, which the site's environment has."""

from typing import Any

import griffe

from website.docstrings import to_markdown
from website.names import FILES, links_within


class Docstrings(griffe.Extension):
    """Replaces each docstring, once a package has been read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Replace the docstring of a module, class or function, if it has one."""
        if obj.docstring is None:
            return
        linen = obj.path.startswith("droppath_flax.linen")
        package = "droppath_flax.linen" if linen else obj.path.split(".")[0]
        if package in FILES:
            obj.docstring.value = to_markdown(obj.docstring.value, links_within(package))
