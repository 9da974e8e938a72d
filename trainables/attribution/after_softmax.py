"""Any method, explaining the probability instead of the logit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from trainables.attribution.attribution import Attribution, Explained
from trainables.models.network import Model
from trainables.passes import Need, Passes


@dataclass(frozen=True, kw_only=True)
class Probabilities:
    """A request: passes about the same explanations of the softmax of the logits.

    They announce what was announced before, so that one forward and backward serve all methods.
    """

    def compute(self, passes: Passes) -> Passes:
        """A child of the passes."""
        batch = passes.batch
        everyone = torch.arange(len(batch.targets), device=batch.targets.device)
        model = passes.model.with_probabilities()
        child = passes.on(batch.images, image_index=batch.image_index, of=everyone, model=model)
        child.expect(passes.expected)
        return child


@dataclass(frozen=True, kw_only=True)
class AfterSoftmax(Attribution):
    """What a method says of the probability of a class: the other arm of a comparison.

    Protocols go on judging it by the logits, unless they are told otherwise.

    Source: IDSDS (Hesse et al., 2024), attribution before or after the softmax.
    Departs: the authors' code then takes the drops from the probabilities as well; here that is a
        field of the protocol (``drop_output``).
    """

    name: ClassVar[str] = "after_softmax"

    of: Attribution
    """The method."""

    @property
    def cost(self) -> float:
        return self.of.cost

    def needs(self, model: Model) -> tuple[Need, ...]:
        """What the method needs; its features serve both arms."""
        return self.of.needs(model)

    @property
    def explains(self) -> Explained:
        return "probability"

    def suit(self, model: Model) -> None:
        """Refuse also what does not explain logits: a second softmax would be another method."""
        if self.of.explains != "logit":
            raise ValueError(
                f"{self.of.key} explains the {self.of.explains}: after_softmax is for methods that "
                "explain logits"
            )
        self.of.suit(model)

    def attribute(self, passes: Passes) -> Tensor:
        """The method's maps of the probabilities, (N, h, w)."""
        return self.of(passes.get(Probabilities()))

    def at_image_size(self, maps: Tensor, passes: Passes) -> Tensor:
        """As the method's own."""
        return self.of.at_image_size(maps, passes)
