"""What a network says of each image, whole and with deleted cells: kept, to compare networks by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from data_pipelines.patches import Patches
from trainables.baselines import Baseline, Zero
from trainables.metrics.metric import Annotation, Metric
from trainables.metrics.randomization import cell_means
from trainables.metrics.single_deletion import Deletions, corrupted_accuracy

if TYPE_CHECKING:
    from trainables.metrics.metric import Explain
    from trainables.passes import Passes


@dataclass(frozen=True)
class Responses:
    """The traces of N images, taken apart.

    Attributes:
        probability: softmax probability of the class, (N,).
        correct: whether the whole image is classified correctly, (N,), bool.
        channels: largest value of each of C channels, (N, C).
        maps: means of the map, scaled to [0, 1], over a grid of S cells, (N, S).
    """

    probability: np.ndarray
    correct: np.ndarray
    channels: np.ndarray
    maps: np.ndarray


@dataclass(frozen=True, kw_only=True)
class NetworkResponse(Metric):
    """Whether an image is classified correctly whichever cell is deleted.

    The mean over a split is its corrupted accuracy. Beside it, as traces, what tells two networks
    apart: the probability of the class, whether the whole image is classified correctly, the
    strongest response of a few channels, and the map that is judged, which is to be Grad-CAM's. All
    of it comes out of the forwards of the deletion score.

    Source: IDSDS (Hesse et al., 2024), section 4.1 and table 3: the worst of the deletions; how
        alike a network and its fine-tuned self are. Its code has none of it.
    Departs: neither says at which resolution the maps are compared; here they are scaled to [0, 1]
        at image size and compared on a grid.

    Raises:
        ValueError: a count is not positive.
    """

    name: ClassVar[str] = "network_response"
    revision: ClassVar[int] = 2
    higher_is_better: ClassVar[bool] = True
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    requires: ClassVar[tuple[Annotation, ...]] = ("labels",)
    leaves_traces: ClassVar[bool] = True

    patches: Patches = field(default=16, metadata={"short": "p"})
    """Cells of the deletion grid. 16 in the paper."""
    baseline: Baseline = field(default_factory=Zero)
    """What stands where a cell is deleted. Zero in the paper."""
    layer: str = "final"
    """Whose channels respond. The last one in the paper."""
    channels: int = 8
    """How many channels, drawn by seed. Ours: the paper shows a few random ones."""
    channel_seed: int = 0
    """Of the draw."""
    grid: int = 14
    """Cells along a side over whose means the maps are compared. Ours."""

    def __post_init__(self) -> None:
        """Check the counts."""
        super().__post_init__()
        if self.channels < 1 or self.grid < 1 or self.channel_seed < 0:
            raise ValueError(
                f"network_response: channels = {self.channels}, grid = {self.grid}, channel_seed = "
                f"{self.channel_seed}: expected at least 1, 1 and 0"
            )

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)

    def score(self, passes: Passes, maps: Tensor, explain: Explain | None) -> Tensor:
        """1 where every deletion leaves the image classified correctly, else 0."""
        batch = passes.batch
        deleted = passes.get(Deletions(patches=self.patches, baseline=self.baseline))
        return corrupted_accuracy(deleted[batch.image_index], batch.targets).to(maps.dtype)

    def traced(
        self, passes: Passes, maps: Tensor, explain: Explain | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Scores (N,), and the responses (N, 2 + C + grid * grid)."""
        maps, batch = self.checked(passes, maps), passes.batch
        logits = passes.logits[batch.image_index]
        probability = logits.softmax(1).gather(1, batch.targets[:, None])
        correct = logits.argmax(1, keepdim=True) == batch.targets[:, None]
        output = passes.as_maps(passes.output(self.layer))
        chosen = self.chosen(output.shape[1]).to(output.device)
        strongest = output[:, chosen].amax((2, 3))
        cells = cell_means(min_max(maps), self.grid).flatten(1)
        parts = (probability, correct, strongest, cells)
        return self.score(passes, maps, explain), torch.cat([p.to(maps.dtype) for p in parts], 1)

    def chosen(self, channels: int) -> Tensor:
        """Which of so many channels respond: a function of the seed."""
        order = np.random.default_rng(self.channel_seed).permutation(channels)
        return torch.from_numpy(np.sort(order[: self.channels]))

    def responses(self, traces: np.ndarray) -> Responses:
        """Traces (N, S), taken apart."""
        channels, maps = np.split(traces[:, 2:], [traces.shape[1] - 2 - self.grid**2], axis=1)
        return Responses(traces[:, 0], traces[:, 1] > 0.5, channels, maps)


def min_max(maps: Tensor) -> Tensor:
    """Maps (N, H, W) scaled to [0, 1]; a constant one becomes zero."""
    above = maps - maps.amin((1, 2), keepdim=True)
    largest = above.amax((1, 2), keepdim=True)
    return torch.where(largest > 0, above / largest, 0.0)
