"""What networks of different designs score: designs side by side, method by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analysis.designs import DEFAULT, LOGIT, TUNED, best, compared, scored
from analysis.findings.contrast import Contrast
from analysis.findings.finding import FAILS, HOLDS, NAN, UNDECIDED
from analysis.probing_rows import Column, Gain, RowScores, gain, over_seeds
from analysis.runs import Runs

DEPTHS: Sequence[Sequence[str]] = (
    ("resnet18", "resnet50", "resnet101", "resnet152"),
    ("vgg11", "vgg13", "vgg16", "vgg19"),
    ("small_resnet", "small_deep_resnet"),
)
"""Networks from shallow to deep."""
WIDTHS: Sequence[Sequence[str]] = (
    ("resnet50", "wide_resnet50_2"),
    ("small_resnet", "small_wide_resnet"),
)
"""A network and a wider one."""
NORMS: Sequence[Sequence[str]] = (
    ("resnet50", "fixup_resnet50", "xresnet50"),
    ("vgg16_bn", "vgg16", "xvgg16"),
    ("small_resnet", "small_fixup_resnet", "small_xresnet"),
    ("small_vgg_bn", "small_vgg", "small_xvgg"),
)
"""With batch norm, without, without any bias as well."""
ARCHITECTURES: Sequence[Sequence[str]] = (
    ("vgg16", "resnet50", "vit_base_patch16"),
    ("small_vgg", "small_resnet", "small_vit"),
)
"""From the best to the worst, as the paper has it."""
OWN_METHODS: Mapping[str, tuple[str, str]] = {
    "bcos_resnet50": ("bcos", "resnet50"),
    "bagnet33": ("bagnet", "resnet50"),
    "small_bcos_resnet": ("bcos", "small_resnet"),
    "small_bagnet": ("bagnet", "small_resnet"),
}
"""Networks that explain themselves: by which method, and the plain network beside them."""
PLAIN_NETWORKS = ("resnet50", "small_resnet")
"""Networks on which the paper compares methods."""


@dataclass(frozen=True, kw_only=True)
class DesignEvidence:
    """All scores of a report and the rows behind them."""

    scores: pd.DataFrame
    """As ``designs.scored`` gives it."""
    comparisons: pd.DataFrame
    """As ``designs.compared`` gives it."""
    rows: RowScores

    @classmethod
    def of(cls, runs: Runs) -> DesignEvidence:
        """Everything that these runs say of designs."""
        return cls(scores=scored(runs), comparisons=compared(runs), rows=RowScores(runs))

    @property
    def networks(self) -> list[str]:
        """Networks of which anything is known, in the order of the runs."""
        return list(dict.fromkeys(self.scores["network"]))

    def gate(self, network: str, setting: str = DEFAULT) -> str:
        """Why a network's score is no in-domain score; empty where it is."""
        rows = self.comparisons
        rows = rows[
            (rows["pair"] == "finetuned")
            & (rows["network"] == network)
            & (rows["setting"] == setting)
        ]
        known = rows["in_domain"].dropna()
        if known.empty:
            return f"{network}: nothing says whether it knows deletions"
        if (known == 1).all():
            return ""
        row = rows.iloc[0]
        corrupted = f"{100 * row['corrupted_accuracy_before']:.1f}"
        clean = f"{100 * row['accuracy_before']:.1f}"
        return (
            f"{network} does not pass the gate: fine-tuning took its accuracy with the worst patch "
            f"deleted from {corrupted} to {100 * row['corrupted_accuracy_after']:.1f}, the clean "
            f"one from {clean} to {100 * row['accuracy_after']:.1f}; its score is an SDS"
        )

    def methods(self, network: str, protocol: str = TUNED, output: str = LOGIT) -> list[str]:
        """The methods that were judged on a network."""
        return [method for (name, method, *rest) in self._columns if name == network
                and tuple(rest[:2]) == (protocol, output)]  # fmt: skip

    def columns(
        self,
        network: str,
        method: str,
        protocol: str = TUNED,
        output: str = LOGIT,
        setting: str = DEFAULT,
    ) -> dict[str, Column]:
        """The scores of a method on a network, by seed."""
        rows = self._columns.get((network, method, protocol, output, setting))
        found: dict[str, Column] = {}
        for result_id, key, seed in (
            () if rows is None else rows[["result_id", "key", "seed"]].itertuples(index=False)
        ):
            scores = self.rows.column(str(result_id), str(key))
            if scores is not None:
                found[str(seed)] = scores
        return found

    @cached_property
    def _columns(self) -> dict[tuple[str, str, str, str, str], pd.DataFrame]:
        names = ["network", "method", "protocol", "output", "setting"]
        groups = self.scores.groupby(names, sort=False)
        return {tuple(map(str, key)): part for key, part in groups}  # type: ignore[misc]

    def gain(self, own: Mapping[str, Column], rival: Mapping[str, Column]) -> Gain | None:
        """What one side scores more on the images of both, over the seeds that both have."""
        seeds = [seed for seed in own if seed in rival]
        return over_seeds([gain(own[s], rival[s]) for s in seeds]) if seeds else None

    def best(self, network: str) -> tuple[str, float]:
        """The best method of a network and its score."""
        return best(self.scores, network)

    def majority(self, better: str, worse: str, what: str) -> list[Contrast]:
        """Whether most methods that both networks have score higher on the first.

        The first contrast decides: a side wins with more than half of the methods; methods whose
        interval includes 0 count for neither. The others are the methods.
        """
        why = self.gate(better) or self.gate(worse)
        theirs = self.methods(worse)
        common = [method for method in self.methods(better) if method in theirs]
        each = [
            Contrast.of(
                self.gain(self.columns(better, method), self.columns(worse, method)),
                "above",
                what=f"{method}: {better} over {worse}",
                metric=TUNED,
                method=method,
                backbone=better,
                decides=False,
            )
            for method in common
        ]
        return [counted(each, what, why or ("" if common else "no method on both networks")), *each]


def counted(each: Sequence[Contrast], what: str, why: str = "") -> Contrast:
    """What the majority of some contrasts says; whose interval includes 0 counts for neither."""
    holding = sum(contrast.low > 0 for contrast in each)
    failing = sum(contrast.high < 0 for contrast in each)
    verdict = UNDECIDED
    if not why:
        half = len(each) / 2
        verdict = HOLDS if holding > half else FAILS if failing > half else UNDECIDED
        if verdict == UNDECIDED:
            why = f"{holding} methods for, {failing} against, of {len(each)}"
    effects = pd.Series([contrast.effect for contrast in each], dtype=float)
    return Contrast(
        what=f"{what} ({holding} of {len(each)} methods for, {failing} against)",
        metric=TUNED,
        verdict=verdict,
        why=why,
        seeds=min((contrast.seeds for contrast in each), default=0),
        units=min((contrast.units for contrast in each), default=0),
        effect=float(effects.median()) if len(effects) else NAN,
    )
