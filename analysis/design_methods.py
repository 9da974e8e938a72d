"""What the paper calls the methods that designs are judged by, from what they were run with."""

from __future__ import annotations

import pandas as pd

from analysis.paper_tables import AS_RUN, NAMES
from analysis.probing import column

SIGNED = ("IxG", "IxG-SG", "IG", "IG-U", "IG-SG")
"""Methods that the paper has with signed maps and with absolute ones."""
RAW = ("IxG", "IG", "IG-U")
"""Of these, the ones that incremental deletion with updated maps puts first."""
SMOOTHED = (("IxG-SG", "IxG"), ("IG-SG", "IG"), ("SG-CAM++", "Grad-CAM++"))
"""A method over noisy copies, and the method."""
OWN = ("B-cos", "BagNet")
"""Methods that come with a network."""
CAMS = ("Grad-CAM", "Grad-CAM++", "SG-CAM++", "XGrad-CAM", "Layer-CAM")
"""Methods that read a convolutional layer."""
ATTENTION = ("Rollout", "CheferLRP")
"""Methods that read a transformer's attention."""
ORDER = tuple(name.removesuffix("-33") for name in NAMES.values())
"""All of the paper's, in its order; BagNets of any depth have one method."""
ONE_ARM = ("RISE", "RISE-U", "Rollout")
"""Methods that explain no logit, and have no other arm after the softmax."""
AFTER_SOFTMAX = "after_softmax"
"""A method that stands around another, whose fields are found below it."""


def absolute(method: str) -> str:
    """The same method with absolute maps."""
    return f"{method} abs."


def method_names(rows: pd.DataFrame) -> pd.Series:
    """A name for the method of each evaluation, the same before the softmax and after.

    The paper's short name, told by the method's own parameters; its key for methods outside the
    paper. Where several methods would bear one name, the one of the set that does as the paper's
    code did has it, and the others are called by their keys.

    Args:
        rows: evaluations, with parameters as columns and ``tag.method``.
    """
    fields = ("name", "baseline.name", "absolute", "squared", "of_set")
    told = zip(*(_of_method(rows, field) for field in fields), strict=True)
    known = pd.DataFrame(
        [
            (NAMES.get((name, baseline, absolute == "True", squared == "True"), ""), of_set)
            for name, baseline, absolute, squared, of_set in told
        ],
        columns=["paper", "of_set"],
        index=rows.index,
    )
    known["key"] = column(rows, "tag.method").astype(str)
    named = known["paper"].str.removesuffix("-33")
    for _, part in known[known["paper"] != ""].groupby("paper"):
        as_run = part.loc[part["of_set"] == AS_RUN, "key"].unique()
        bearing = as_run if len(as_run) else part["key"].unique()
        others = part["key"] != bearing[0] if len(bearing) == 1 else part["key"] != ""
        named[part.index[others]] = ""
    return named.where(named != "", known["key"])


def in_order(methods: list[str]) -> list[str]:
    """Methods as the paper lists them, the others after them by name."""
    return sorted(methods, key=lambda m: (ORDER.index(m) if m in ORDER else len(ORDER), m))


def _of_method(rows: pd.DataFrame, field: str) -> pd.Series:
    """A parameter of the method itself, as text; empty where it has none."""
    inner = column(rows, "attribution.name") == AFTER_SOFTMAX
    outer = column(rows, f"attribution.{field}")
    return outer.where(~inner, column(rows, f"attribution.of.{field}")).astype(str)
