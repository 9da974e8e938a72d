"""What the sweeps of IDSDS share: the data, and methods at the size of the sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

from data_pipelines.dataset import Dataset
from sweeps.idsds_recipes import RECIPES, SAMPLE_METHODS
from sweeps.launch import Sweep
from trainables.attribution.attribution import Attribution


@dataclass(frozen=True, kw_only=True)
class IdsdsSweep(Sweep):
    """Flags of both."""

    dataset: str = "digit_scenes"
    """digit_scenes (generated, one digit an image) or imagenet (as published)."""

    def data(self) -> Dataset:
        if self.dataset not in RECIPES:
            raise ValueError(f"unknown --dataset {self.dataset!r}; known: {', '.join(RECIPES)}")
        if self.dataset == "digit_scenes":
            sizes = {"images_train": 96, "images_val": 24} if self.smoke else {}
            return Dataset.named(self.dataset, root=self.data_root, layout="imagenet", **sizes)
        if not self.data_root:
            raise ValueError(f"--dataset {self.dataset} needs --data-root, the published folder")
        return Dataset.named(self.dataset, root=self.data_root)

    def at_size(self, method: Attribution) -> Attribution:
        """The method with the sample's number of copies, on the sample."""
        fewer = SAMPLE_METHODS.get(method.name, {}) if self.dataset == "digit_scenes" else {}
        return replace(method, **fewer)
