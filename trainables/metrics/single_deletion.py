"""Single deletion: a map is good that ranks the patches of an image as their deletions do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from data_pipelines.patches import Patches, cell_of_pixel, cell_sides, grid_side
from trainables.baselines import Baseline, Zero
from trainables.metrics.metric import Metric
from trainables.metrics.rank_correlation import spearman

if TYPE_CHECKING:
    from trainables.metrics.metric import Explain
    from trainables.passes import Passes

Output = Literal["logit", "probability"]


@dataclass(frozen=True, kw_only=True)
class Deletions:
    """A request: logits of every image with each cell of a grid replaced by the baseline's cell.

    They depend neither on targets nor on maps, so one answer serves every method and every
    protocol of a batch: one forward an image and cell, and no gradient.
    """

    patches: int
    baseline: Baseline

    def compute(self, passes: Passes) -> Tensor:
        """Logits (B, P, K), cells row by row."""
        batch = passes.batch
        images, baselines = batch.images, self.baseline.images(batch)
        cell = torch.from_numpy(cell_of_pixel(self.patches, *images.shape[2:])).to(images.device)
        nobody = torch.empty(0, dtype=torch.long, device=images.device)
        answer: Tensor | None = None
        for slab in passes.slabs(self.patches, graph=False, explained=False):
            deleted = (cell == slab.sample.view(-1, 1, 1)).unsqueeze(1)
            copies = torch.where(deleted, baselines[slab.image], images[slab.image])
            logits = passes.on(copies, image_index=nobody, of=nobody).logits
            if answer is None:
                answer = logits.new_empty(len(images), self.patches, logits.shape[1])
            answer[slab.image, slab.sample] = logits
        if answer is None:  # no image
            return passes.logits.unsqueeze(1).expand(-1, self.patches, -1)
        return answer


@dataclass(frozen=True, kw_only=True)
class SingleDeletion(Metric):
    """Rank correlation of a map's sums over the cells with the drops that their deletions cause.

    Neither side is normalized or made positive. Undefined where one of them is constant, as with
    a map of zeros.
    """

    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    chance: ClassVar[float | None] = 0.0

    patches: Patches = field(default=16, metadata={"short": "p"})
    """Cells of the grid. 16 in the paper, with 4 and 64 as variants."""
    baseline: Baseline = field(default_factory=Zero)
    """What stands where a cell is deleted. Zero in the paper, with random and blur as variants."""
    drop_output: Output = "logit"
    """Of what the drop is taken. The authors' code takes the probability wherever it also
    explains the probability."""

    @property
    def deletions(self) -> Deletions:
        """What the protocol asks of the model."""
        return Deletions(patches=self.patches, baseline=self.baseline)

    def score(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """Spearman(cell sums, drops)."""
        batch, deleted = passes.batch, passes.get(self.deletions)
        whole = passes.logits
        if self.drop_output == "probability":
            whole, deleted = (passes.model.probabilities(logits) for logits in (whole, deleted))
        drops = target_drops(whole, deleted, batch.image_index, batch.targets)
        return spearman(cell_sums(maps, self.patches), drops).to(maps.dtype)


@dataclass(frozen=True, kw_only=True)
class Sds(SingleDeletion):
    """Single deletion score: on a network that was not fine-tuned with this grid and baseline.

    Source: IDSDS (Hesse et al., 2024), section 4.2 (SDS). Undefined rows: the authors' code leaves
        them out, the paper does not say; left out here.
    """

    name: ClassVar[str] = "sds"


@dataclass(frozen=True, kw_only=True)
class Idsds(SingleDeletion):
    """In-domain single deletion score: on a network fine-tuned with this grid and this baseline.

    Which network that is, `trainables/idsds_finetuning.py` says.

    Source: IDSDS (Hesse et al., 2024), section 3, equation 1. Undefined rows: the authors' code
        leaves them out, the paper does not say; left out here.
    """

    name: ClassVar[str] = "idsds"


def cell_sums(maps: Tensor, patches: int) -> Tensor:
    """Sums of maps (N, H, W) over the cells of a grid, row by row, (N, P), float64.

    Every cell is summed in the same order of its pixels: equal cells have equal sums to the bit,
    and a constant map stays without any order.

    Departs: the authors' code sums in float32, which orders nearly tied cells by rounding.
    """
    side, (height, width) = grid_side(patches), cell_sides(patches, *maps.shape[1:])
    cells = maps[:, : side * height, : side * width]
    cells = cells.unflatten(2, (side, width)).unflatten(1, (side, height)).transpose(2, 3)
    return cells.flatten(3).flatten(1, 2).contiguous().sum(2, dtype=torch.float64)


def target_drops(whole: Tensor, deleted: Tensor, image_index: Tensor, targets: Tensor) -> Tensor:
    """How much each deletion takes from the target of each explanation, (N, P); larger matters.

    Args:
        whole: logits or probabilities of the images, (B, K).
        deleted: the same with each cell deleted, (B, P, K), as `Deletions` answers.
        image_index: the image of each explanation, (N,).
        targets: its class, (N,).
    """
    return whole[image_index, targets].unsqueeze(1) - deleted[image_index, :, targets]


def corrupted_accuracy(deleted: Tensor, labels: Tensor) -> Tensor:
    """Whether an image is classified correctly whichever cell is deleted, (B,), bool.

    The mean over a split is its corrupted accuracy.

    Source: IDSDS (Hesse et al., 2024), table 3: the worst of the deletions.

    Args:
        deleted: answer of `Deletions`, (B, P, K).
        labels: the class of each image, (B,).
    """
    return (deleted.argmax(2) == labels.unsqueeze(1)).all(1)
