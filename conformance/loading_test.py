"""Adapters that cannot be loaded, or break the protocol: one line that says how."""

import time
from dataclasses import replace

import numpy as np
import pytest

from conformance import loading
from conformance.adapters.reference import Reference
from conformance.command import main
from conformance.loading import load
from conformance.protocol import BrokenAdapter, Info
from conformance.runner import run_checks


class Bare(Reference):
    """A right DropPath that claims nothing but to need a key."""

    def info(self):
        return Info("bare", frozenset({"stateless"}))


def raises():
    raise OSError("no such device")


def leaves():
    raise SystemExit(0)


class Silent(Bare):
    def run(self, call):
        return None


class Sleeper(Bare):
    def run(self, call):
        time.sleep(60)


class Fresh(Bare):
    def run(self, call):
        self.calls = getattr(self, "calls", 0) + 1
        return load("reference").run(replace(call, seed=self.calls))


class Seedless(Bare):
    def run(self, call):
        return load("reference").run(replace(call, seed=0))


class Boastful(Bare):
    def info(self):
        return Info("boastful", frozenset({"flight"}), ("float8",))


def changed(**changes):
    """A backend whose outcomes differ from the reference's as said."""

    class Changed(Bare):
        def run(self, call):
            outcome = load("reference").run(call)
            return replace(outcome, **{name: new(call, outcome) for name, new in changes.items()})

    return Changed


BROKEN = {
    "raises": (raises, "OSError: no such device"),
    "exits": (leaves, "SystemExit: 0"),
    "returns nothing": (Silent, "y must be an array of float64, got NoneType"),
    "wrong shape": (
        changed(y=lambda c, o: np.zeros(3)),
        "y must have the shape (4, 2), got (3,)",
    ),
    "float32": (
        changed(y=lambda c, o: o.y.astype(np.float32)),
        "y must be an array of float64, got float32",
    ),
    "constant": (changed(y=lambda c, o: np.ones(c.x.shape)), "y does not depend on x"),
    "ignores the seed": (Seedless, "y does not depend on the seed: 8 seeds gave one mask"),
    "never the same": (Fresh, "the same seed gave two masks"),
    "dtype text": (
        changed(dtype=lambda c, o: "f4"),
        "dtype must be one of float64, float32, float16, bfloat16, got 'f4'",
    ),
    "claims": (Boastful, "info names what there is not: flight, float8"),
    "hangs": (Sleeper, "no answer within 0.2 s"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_adapter_ends_in_exit_2_with_one_line_that_says_what_it_did(
    how, monkeypatch, capsys
):
    make, reason = BROKEN[how]
    monkeypatch.setitem(globals(), "made", make)
    monkeypatch.setattr(loading, "SECONDS", 0.2 if how == "hangs" else 300)
    assert main([f"{__name__}:made"]) == 2
    assert capsys.readouterr().err.splitlines() == [f"broken adapter: {__name__}:made: {reason}"]


def test_an_adapter_that_hangs_in_a_check_is_named_with_the_clause(monkeypatch):
    monkeypatch.setattr(loading, "SECONDS", 0.2)
    with pytest.raises(BrokenAdapter, match=r"bare: ARG-1: no answer within 0\.2 s"):
        run_checks("sleeper", Sleeper(), ("ARG-1",))


@pytest.mark.parametrize("name", ["nothing", "conformance:nothing", f"{__name__}:raises"])
def test_exit_status_2_in_one_line_for_an_adapter_that_cannot_be_loaded(name, capsys):
    assert main([name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"broken adapter: {name}")
