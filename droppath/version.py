"""The version of this distribution: the one place that says it, read by the build too."""

__version__ = "0.1.0"
