"""Adapters that cannot be loaded, or break the protocol: one line that says how."""

from dataclasses import replace

import numpy as np
import pytest

from conformance.adapters.reference import Reference
from conformance.command import main
from conformance.loading import load, make, smoke
from conformance.protocol import BrokenAdapter, Info, NotTaken


class Bare(Reference):
    """A right DropPath that claims nothing but to need a key."""

    def info(self):
        return Info("bare", frozenset({"stateless"}))


class Silent(Bare):
    def run(self, call):
        return None


class Fresh(Bare):
    def run(self, call):
        self.calls = getattr(self, "calls", 0) + 1
        return super().run(replace(call, seed=self.calls))


class Seedless(Bare):
    def run(self, call):
        return super().run(replace(call, seed=0))


class Boastful(Bare):
    def info(self):
        return Info("boastful", frozenset({"flight"}), ("float8",))


def changed(**changes):
    """A backend whose outcomes differ from the reference's as said."""

    class Changed(Bare):
        def run(self, call):
            outcome = super().run(call)
            return replace(outcome, **{name: new(call, outcome) for name, new in changes.items()})

    return Changed


BROKEN = {
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
}


@pytest.mark.parametrize("how", BROKEN)
def test_an_adapter_that_breaks_the_protocol_is_told_what_it_did(how):
    make, reason = BROKEN[how]
    with pytest.raises(BrokenAdapter) as told:
        smoke(make())
    assert str(told.value) == reason


REFERENCE = "from conformance.adapters.reference import Reference as R\n"
ENDS = {  # the text of an adapter, and what is told of it
    "exits when imported": ("import os; os._exit(0)", "its process ended with exit status 0"),
    "leaves when imported": ("import sys; sys.exit(0)", "SystemExit: 0"),
    "exits when made": (
        "import os\ndef backend(): os._exit(7)",
        "its process ended with exit status 7",
    ),
    "leaves when made": ("def backend(): raise SystemExit(0)", "SystemExit: 0"),
    "raises when made": (
        "def backend(): raise OSError('no such device')",
        "OSError: no such device",
    ),
    "crashes in info": (
        "import os\nclass R:\n def info(self): os.abort()\nbackend = R",
        "its process ended with signal 6, Aborted",
    ),
    "leaves in info": (
        "import sys\nclass R:\n def info(self): sys.exit(0)\nbackend = R",
        "SystemExit: 0",
    ),
    "has no info": (
        "class R:\n def info(self): pass\nbackend = R",
        "info must return an Info, got NoneType",
    ),
    "exits in a call": (
        f"{REFERENCE}import os\nclass R(R):\n def run(self, call): os._exit(0)\nbackend = R",
        "its process ended with exit status 0",
    ),
    "says what a terminal obeys": (
        "def backend(): raise OSError('\\x1b[31mred\\u202e')",
        "OSError: \\x1b[31mred\\u202e",
    ),
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes a module of one's own."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "mine.py"


@pytest.mark.parametrize("how", ENDS)
def test_an_adapter_that_ends_is_exit_2_with_one_line_that_says_how(how, mine, capfd):
    source, reason = ENDS[how]
    mine.write_text(source)
    assert main(["mine", "--only", "TYPE-2"]) == 2
    assert capfd.readouterr().err.splitlines() == [f"broken adapter: mine: {reason}"]


@pytest.mark.parametrize("name", ["nothing", "conformance:nothing"])
def test_exit_status_2_in_one_line_for_an_adapter_that_cannot_be_loaded(name, capfd):
    assert main([name]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"broken adapter: {name}")


def test_an_option_that_an_adapter_does_not_take_is_refused_by_its_name(mine):
    with pytest.raises(NotTaken, match=r"^reference takes no --device$"):
        load("reference", device="cpu")
    mine.write_text(f"{REFERENCE}def backend(**options):\n if options: raise ValueError(options)")
    with pytest.raises(BrokenAdapter, match=r"^mine: ValueError: {'device': 'cpu'}$"):
        load("mine", device="cpu")
    assert make("reference").info() == load("reference").info()
