r"""Formulas: as docstrings have them, for a terminal, and as TeX, which the site shows as MathML.

A docstring keeps `y[i] = x[i] / (1 - drop_prob) if keep[i] else 0`, which reads well in `help()`
and where code is written; TeX there would not. A test holds each entry to a docstring that has it.
MathML is made when the site is built: browsers show it by themselves, without a script.

Source: latex2mathml, MathML Core.
"""

import re

# On one line: a brace over two is only drawn tall where the reader has a font for mathematics.
KEPT = r"\quad \text{if } i \text{ is kept, else} \quad"

# p is drop_prob, s the factor on kept samples: the symbols of SPEC.md. f is the branch.
TEX = {
    "y[i] = x[i] * s if keep[i] else +0": rf"y_i = s \, x_i {KEPT} +0",
    "y[i] = x[i] / (1 - drop_prob) if keep[i] else 0": rf"y_i = \frac{{x_i}}{{1 - p}} {KEPT} 0",
    "y[i] = x[i] / (1 - drop_prob) if sample i is kept else 0": (
        rf"y_i = \frac{{x_i}}{{1 - p}} {KEPT} 0"
    ),
    "y[i] = x[i] + branch(x)[i] / (1 - drop_prob) if sample i is kept else x[i]": (
        rf"y_i = x_i + \frac{{f(x)_i}}{{1 - p}} {KEPT} x_i"
    ),
    "x + branch(x) / (1 - drop_prob)": r"x + f(x) / (1 - p)",
    "dx[i] = dy[i] * s if keep[i] else +0": rf"dx_i = s \, dy_i {KEPT} +0",
    "dx[i] = dy[i] + s * branch_vjp(dy, *per_sample)[i] if keep[i] else dy[i]": (
        rf"dx_i = dy_i + s \, (J^T dy)_i {KEPT} dy_i"
    ),
    "x + s * branch(x, *per_sample)": r"x + s \, f(x)",
    "s = 1/(1 - drop_prob)": r"s = 1 / (1 - p)",
    "1/(1 - drop_prob)": r"1 / (1 - p)",
    "T / 2**23": r"T / 2^{23}",
    "T = ceil(float32(drop_prob) * 2**23)": r"T = \lceil 2^{23} \, \mathrm{float32}(p) \rceil",
    "groups * (b - floor(b * T / 2**23))": (
        r"\mathrm{groups} \, (b - \lfloor b \, T / 2^{23} \rfloor)"
    ),
    "b = batch / groups": r"b = \mathrm{batch} / \mathrm{groups}",
    "value = start + (stop - start) * w": (
        r"\mathrm{value} = \mathrm{start} + (\mathrm{stop} - \mathrm{start}) \, w"
    ),
    "u = (step - begin) / (end - begin)": (
        r"u = \frac{\mathrm{step} - \mathrm{begin}}{\mathrm{end} - \mathrm{begin}}"
    ),
    "w = u": r"w = u",
    "(1 - cos(pi u)) / 2": r"\frac{1 - \cos(\pi u)}{2}",
    "i / (L-1)": r"\frac{i}{L - 1}",
    "(i+1) / L": r"\frac{i + 1}{L}",
    "i / L": r"\frac{i}{L}",
    "i = 0 .. L-1": r"i = 0, \dots, L - 1",
    "J^T dy": r"J^T dy",
}


def pattern() -> str:
    """Return a regular expression for all of them, the longest first, over ends of lines too."""
    longest_first = sorted(TEX, key=len, reverse=True)
    words = (map(re.escape, text.split()) for text in longest_first)
    return "|".join(r"(?<!\w)" + r"\s+".join(text) + r"(?!\w)" for text in words)


def mathml(tex: str, display: str = "inline") -> str:
    """Return TeX as a MathML element; display is "inline" or "block"."""
    from latex2mathml.converter import convert  # the site's environment alone has it

    return str(convert(tex, display=display))
