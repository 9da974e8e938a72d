"""Evidence on designs, put together score by score."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from analysis.findings.design_evidence import DesignEvidence
from analysis.findings.designs import FINDINGS, design_verdicts
from analysis.probing_rows import Column, RowScores

METHODS = ("IxG", "IG", "Grad-CAM")
SCORES = (
    *("result_id", "network", "dataset", "seed", "method", "output", "key"),
    *("protocol", "setting", "value", "defined"),
)
COMPARISONS = (
    *("result_id", "pair", "network", "beside", "dataset", "setting", "seed"),
    *("mad_softmax", "mad_grad_cam", "overlap_at_9", "accuracy_before", "accuracy_after"),
    *("corrupted_accuracy_before", "corrupted_accuracy_after", "in_domain"),
)


def column(mean: float, noise: int = 0, images: int = 40, first: int = 0) -> Column:
    """Scores of images around a mean; equal ``noise`` is the same noise."""
    drawn = np.random.default_rng(noise).normal(0, 0.02, images)
    names = np.array([f"image {first + i}" for i in range(images)], dtype=object)
    unknown = np.full(images, np.nan)
    return Column(names, np.zeros(images, int), mean + drawn - drawn.mean(), unknown)


class Made:
    """Scores and comparisons, and the evidence that they make."""

    def __init__(self, dataset: str = "digit_scenes") -> None:
        self.dataset = dataset
        self.scores: list[dict[str, Any]] = []
        self.comparisons: list[dict[str, Any]] = []
        self.kept: dict[str, dict[str, Column]] = {}

    def score(
        self, network: str, method: str, mean: float, *, protocol: str = "idsds",
        output: str = "logit", setting: str = "p16_zero", seed: str = "0", noise: int = 0,
        defined: int = 40, images: int = 40, first: int = 0,
    ) -> Made:  # fmt: skip
        result_id = f"{len(self.scores):016x}"
        scores = column(mean, noise, images, first)
        scores.scores[defined:] = np.nan
        self.kept[result_id] = {protocol: scores}
        share = min(defined, images) / images
        row = (result_id, network, self.dataset, seed, method, output, protocol)
        row += (protocol, setting, mean, share)
        self.scores.append(dict(zip(SCORES, row, strict=True)))
        return self

    def tuned(
        self, network: str, *, passes: bool = True, accuracy: float = 0.8,
        setting: str = "p16_zero", seed: str = "0", before: float = 0.4,
    ) -> Made:  # fmt: skip
        result_id, rose = f"c{len(self.comparisons)}", 0.1 if passes else -0.1
        row = (result_id, "finetuned", network, network, self.dataset, setting, seed)
        row += (0.05, 0.04, 0.5, accuracy, accuracy, before, before + rose, float(passes))
        self.comparisons.append(dict(zip(COMPARISONS, row, strict=True)))
        return self

    def unrelated(self, network: str, beside: str) -> Made:
        row = ("u", "unrelated", network, beside, self.dataset, "", "0")
        row += (0.1, 0.2, 0.1, 0.8, 0.8, 0.4, 0.4, np.nan)
        self.comparisons.append(dict(zip(COMPARISONS, row, strict=True)))
        return self

    def methods(self, network: str, mean: float, **about: Any) -> Made:
        """A network on which every method scores about the same."""
        for k, method in enumerate(METHODS):
            self.score(network, method, mean + 0.01 * k, noise=k, **about)
        return self

    def network(self, name: str, mean: float, **about: Any) -> Made:
        """The same, fine-tuned and compared with what it was."""
        return self.methods(name, mean).tuned(name, **about)

    @property
    def evidence(self) -> DesignEvidence:
        rows: Any = None
        return DesignEvidence.of_frames(
            pd.DataFrame(self.scores, columns=list(SCORES)),
            pd.DataFrame(self.comparisons, columns=list(COMPARISONS)),
            RowScores(rows, self.kept),
        )

    def judged(self, finding: str) -> tuple[pd.DataFrame, pd.DataFrame]:
        """One finding and its comparisons."""
        return design_verdicts(self.evidence, [one for one in FINDINGS if one.id == finding])

    def finding(self, finding: str) -> pd.Series:
        """The row of a finding."""
        return self.judged(finding)[0].iloc[0]

    def verdict(self, finding: str) -> str:
        return str(self.finding(finding)["verdict"])

    def contrasts(self, finding: str) -> pd.DataFrame:
        """The comparisons of a finding by what they compare."""
        return self.judged(finding)[1].set_index("what")
