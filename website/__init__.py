"""What `make docs` needs beyond mkdocs and its plugins. Nothing else imports it.

hooks.py: pages that lie outside of docs/, and links between them. docstrings.py and formulas.py:
docstrings as Markdown, with formulas. names.py: what is public. griffe_extension.py: where
mkdocstrings asks for all this.
"""
