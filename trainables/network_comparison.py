"""Compare two networks by what each says of the same images: how alike are they?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from data_pipelines.dataset import Dataset
from trainables.deletion_protocol import deletions_known
from trainables.idsds_finetuning import IdsdsFinetuning
from trainables.metrics.classification import mad_softmax
from trainables.metrics.network_response import NetworkResponse, Responses
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.result import Result
from trainables.traces import kept_traces
from trainables.trial import Trial

TOP = 9
"""Images of a channel that are compared. Nine in the paper's figure."""
MAX_ACCURACY_LOSS = 0.01
"""Largest loss of clean accuracy with which a fine-tuned network still counts as the same one."""


@dataclass(frozen=True, kw_only=True)
class NetworkComparison(Result):
    """Differences between two networks, and what fine-tuning did to accuracy.

    MAD of the softmax probability and of Grad-CAM, and the overlap of the images to which a channel
    responds most. Nothing is computed twice: both networks said all of it when they were scored.

    A fine-tuned network counts as in-domain only if its accuracy with deleted patches rose and its
    clean accuracy fell by at most one point; otherwise its score is an SDS in all but name.

    Source: IDSDS (Hesse et al., 2024), section 4.1, table 3 and the figure of top images; the gate
        is ours.
    """

    name: ClassVar[str] = "network_comparison"
    paper: ClassVar[str] = "IDSDS, NeurIPS Datasets and Benchmarks 2024"

    first: ProtocolEvaluation
    """Of the network as it was."""
    second: ProtocolEvaluation
    """Of its fine-tuned self, or of an unrelated network: the yardstick."""

    @property
    def label(self) -> str:
        return f"{self.second.of.label} beside {self.first.of.label}"

    @property
    def tags(self) -> dict[str, str]:
        return {
            "pair": "finetuned" if self.related else "unrelated",
            "network": self.second.network.key,
            "beside": self.first.network.key,
            "finetuned": deletions_known(self.second.of),
        }

    @property
    def related(self) -> bool:
        """Whether the second network is the first, fine-tuned."""
        return isinstance(self.second.of, IdsdsFinetuning) and self.second.of.start == self.first.of

    @property
    def dataset(self) -> Dataset:
        return self.first.dataset

    @property
    def size_px(self) -> int:
        return self.first.size_px

    @property
    def splits(self) -> tuple[str, ...]:
        return (self.first.split,)

    @property
    def dependencies(self) -> tuple[Result, ...]:
        return (self.first, self.second)

    @property
    def directions(self) -> dict[str, str]:
        mads = {"mad_softmax": "min", f"mad_{self.first.attribution.name}": "min"}
        return mads | {f"overlap_at_{TOP}": "max"}

    @property
    def response(self) -> NetworkResponse:
        """What both networks were asked."""
        return next(p for p in self.second.protocols if isinstance(p, NetworkResponse))

    def cost(self, images: dict[str, int]) -> float:
        """Arithmetic on what is there."""
        return 1.0

    def check(self) -> None:
        """Both were asked the same of the same images."""
        for one in (self.first, self.second):
            if not any(isinstance(protocol, NetworkResponse) for protocol in one.protocols):
                raise ValueError(
                    f"{one.label}: has no network_response among its protocols; two networks are "
                    "compared by it"
                )
        if replace(self.first, of=self.second.of, protocols=self.second.protocols) != self.second:
            raise ValueError(
                f"{self.first.label} and {self.second.label} differ in more than the network: they "
                "must judge the same method on the same images"
            )
        if self.response not in self.first.protocols:
            raise ValueError(
                f"{self.first.label}: was not asked {self.response.key}, as the other one"
            )

    def compute(self, trial: Trial) -> None:
        ids, (before, after), worst = self.said(trial)
        metrics = {
            "mad_softmax": mad_softmax(before.probability, after.probability),
            f"mad_{self.first.attribution.name}": float(np.abs(before.maps - after.maps).mean()),
            f"overlap_at_{TOP}": overlap(before.channels, after.channels),
            "accuracy_before": float(before.correct.mean()),
            "accuracy_after": float(after.correct.mean()),
            "corrupted_accuracy_before": worst[0],
            "corrupted_accuracy_after": worst[1],
        }
        if self.related:
            metrics["in_domain"] = float(is_in_domain(metrics))
        trial.report(1, {f"{self.first.split}/{key}": value for key, value in metrics.items()})
        self.leave_top_images(trial, ids, before.channels, after.channels)
        trial.finish({"images": len(ids)})

    def said(
        self, trial: Trial
    ) -> tuple[np.ndarray, tuple[Responses, Responses], tuple[float, float]]:
        """Ids of the images that both were asked about, what each said, the corrupted accuracies.

        Raises:
            ValueError: they have no image in common.
        """
        said = [kept_traces(trial, one, self.response) for one in (self.first, self.second)]
        ids, *rows = np.intersect1d(
            said[0]["image_ids"], said[1]["image_ids"], assume_unique=True, return_indices=True
        )
        if not len(ids):
            raise ValueError(f"{self.label}: no image was judged on both networks")
        traces = [one["traces"][chosen] for one, chosen in zip(said, rows, strict=True)]
        worst = [
            float(one["scores"][chosen].mean()) for one, chosen in zip(said, rows, strict=True)
        ]
        before, after = map(self.response.responses, traces)
        return ids, (before, after), (worst[0], worst[1])

    def leave_top_images(
        self, trial: Trial, ids: np.ndarray, before: np.ndarray, after: np.ndarray
    ) -> None:
        """Leave the images to which each channel responds most, of both, as ``channels.npz``."""
        images = trial.images(self.first.split)
        tops = np.stack([top_images(before), top_images(after)])  # (2, C, TOP) rows of ids
        where = np.searchsorted(images.image_ids, ids[tops])
        wanted = np.unique(where)
        with images.expecting([wanted]):
            pixels = images.images(wanted).transpose(0, 2, 3, 1)
        np.savez_compressed(
            trial.artifacts / "channels.npz",
            channels=self.response.chosen(before.shape[1]).numpy(),
            image_ids=ids[tops],
            rows=np.searchsorted(wanted, where),
            images=pixels,
        )


def is_in_domain(metrics: dict[str, float]) -> bool:
    """Whether fine-tuning made deletions known and left the network what it was."""
    rose = metrics["corrupted_accuracy_after"] > metrics["corrupted_accuracy_before"]
    lost = metrics["accuracy_before"] - metrics["accuracy_after"]
    return rose and lost <= MAX_ACCURACY_LOSS + 1e-12


def top_images(responses: np.ndarray, top: int = TOP) -> np.ndarray:
    """Rows of the images to which each channel responds most, (C, top); the first of equals first.

    Args:
        responses: (N, C).
        top: how many; all, where there are fewer.
    """
    return np.argsort(-responses, axis=0, kind="stable")[:top].T


def overlap(first: np.ndarray, second: np.ndarray, top: int = TOP) -> float:
    """Share of the top images of a channel that two networks have in common, its mean over C.

    Chance is top / N.

    Args:
        first: responses of one network, (N, C).
        second: of the other, the same images and channels.
        top: how many images of a channel.
    """
    pairs = zip(top_images(first, top), top_images(second, top), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in pairs]))
