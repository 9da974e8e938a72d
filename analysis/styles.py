"""How losses and references look, the same in every figure; told apart without color too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from analysis.guidance import BASELINE, CONTROL, LOSSES


@dataclass(frozen=True, kw_only=True)
class Style:
    """A color, a marker in matplotlib's and in plotly's words, and a name for people."""

    color: str
    marker: str
    symbol: str
    label: str


STYLES = {
    "energy": Style(color="#D55E00", marker="o", symbol="circle", label="Energy"),
    "l1": Style(color="#0072B2", marker="s", symbol="square", label="L1"),
    "ppce": Style(color="#009E73", marker="^", symbol="triangle-up", label="PPCE"),
    "rrr_star": Style(color="#AA4499", marker="v", symbol="triangle-down", label="RRR*"),
    BASELINE: Style(color="black", marker="*", symbol="star", label="baseline"),
    CONTROL: Style(color="black", marker="D", symbol="diamond-open", label="λ = 0"),
}
"""Colors after Okabe and Ito and after Tol, distinct under the common color vision deficiencies."""
SPARE = (
    ("#E69F00", "P", "cross"),
    ("#56B4E9", "X", "x"),
    ("#882255", "h", "hexagon"),
    ("#999933", "p", "pentagon"),
)
"""What losses without a style of their own get, by name."""


def styles(losses: Iterable[str]) -> dict[str, Style]:
    """The style of each loss, the paper's first; a loss that has none gets a spare one."""
    present = set(losses)
    known = {loss: STYLES[loss] for loss in LOSSES if loss in present}
    for i, loss in enumerate(sorted(present - known.keys())):
        color, marker, symbol = SPARE[i % len(SPARE)]
        known[loss] = Style(color=color, marker=marker, symbol=symbol, label=loss)
    return known


def label(loss: str) -> str:
    """What people call a loss or a reference."""
    return STYLES[loss].label if loss in STYLES else loss
