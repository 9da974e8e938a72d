"""What the sweeps on probes share: frozen backbones, probes on them, and how maps are judged.

Equal flags give equal results, whichever sweep asks: what one has computed, the others find.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Literal

from data_pipelines.dataset import Dataset
from sweeps.backbones import accounts, published_backbones
from sweeps.launch import Findings
from sweeps.pretraining_sweep import UNTRAINED, PretrainingSweep
from sweeps.probing_recipes import PROBES, RECIPES, Judging, methods_of
from sweeps.probing_recipes import Recipe as ProbingRecipe
from trainables.attribution.attribution import Attribution
from trainables.backbone import Backbone, PublishedBackbone
from trainables.gauge import AsTrained, Gauge
from trainables.models.network import Network
from trainables.models.probe import Probe
from trainables.probe_evaluation import ProbeEvaluation
from trainables.probe_grids import ProbeGridEvaluation
from trainables.probe_training import ProbeTraining
from trainables.result import Result

CE, BCE, BCE_UNIFORM = "ce", "bce", "bce_uniform"
LOSSES: Mapping[str, Mapping[str, Any]] = {
    CE: {"objective": "ce"},
    BCE: {"objective": "bce"},
    BCE_UNIFORM: {"objective": "bce", "off_target": "uniform"},
}
"""What each is called by flags, and fields of ``ProbeTraining``."""
CHOOSING = tuple(product(("conventional", "bcos"), (CE, BCE)))
"""Kind and loss of the probes of one layer that choose common images, whatever else is asked for:
who joins the study changes no mosaic."""
FINE = ("integrated_gradients", "input_x_gradient")
"""Methods whose maps the paper's code smooths by a Gaussian over 129 px before a mosaic's cells are
compared; on images of 64 px by 5 px, as the others."""
FINE_PX = 129
Choice = Literal["own", "common"]


@dataclass(frozen=True, kw_only=True)
class ProbingSweep(PretrainingSweep):
    """Flags of every sweep on probes."""

    compared: ClassVar[tuple[str, ...]]
    """Losses where no flag names others."""

    pretrainings: tuple[str, ...] | None = None
    """Of the backbones that are trained here: supervised, supervised_ce, supervised_bce, moco_v2,
    moco_v3, byol, dino, or none for the untrained network, the control. None: supervised, moco_v3
    and the control on the sample; on published data the paper's, or nothing beside --backbones."""
    backbones: tuple[str, ...] = ()
    """Published checkpoint files, each as NETWORK=PRETRAINING:FILE, as in
    resnet50=moco_v2:moco_v2_800ep.pth.tar; with them --networks is for the others."""
    probes: tuple[str, ...] = ("conventional", "bcos")
    """Kinds of probes."""
    losses: tuple[str, ...] | None = None
    """ce, where an image has one class; bce, which wants 0 of an absent class as the paper says;
    bce_uniform, 1/C as its code. None: all three for the objective, the first two for the depth."""
    attributions: tuple[str, ...] = ()
    """Methods by name, where they suit the probed network. Empty: those of the paper for each kind
    of network."""
    recipe_of_probes: str = ""
    """paper, code_cosine and code_step (its code's two); paper_multi_label and code_multi_label for
    images of several classes; sample. Empty: sample on the sample, else the paper's."""
    epochs: int = 0
    """Epochs of every probe. 0: the recipe's, 100 in the paper."""
    images: int = 0
    """Images on which EPG, Gini, entropy and pixel deletion are judged. 0: all of the split, 32 on
    the sample."""
    grids: int = 0
    """Mosaics of the grid pointing game. 0: 500 as in the paper, 16 on the sample."""
    grid_side: Literal[0, 2, 3] = 0
    """Images along a side of a mosaic. 0: 3 as in the paper, 2 on the sample."""
    grid_images: tuple[Choice, ...] = ("common",)
    """Of which images: those that each probe is surest of (own, as in the paper), or those that the
    four probes of one layer by ce and bce classify correctly (common), so that all probes of a
    backbone are judged on equal mosaics."""

    @property
    def probing(self) -> ProbingRecipe:
        """How the dataset's backbones are probed."""
        return RECIPES[self.dataset]

    @property
    def judging(self) -> Judging:
        """How many images and mosaics, with the flags."""
        recipe = self.probing.judging
        return replace(
            recipe,
            images=self.images or recipe.images,
            grids=self.grids or recipe.grids,
            side=self.grid_side or recipe.side,
        )

    @property
    def probe_recipe(self) -> dict[str, Any]:
        """How probes are trained: fields of their trainings.

        Raises:
            ValueError: an unknown name.
        """
        name = self.recipe_of_probes or self.probing.probes
        if name not in PROBES:
            raise ValueError(f"unknown --recipe-of-probes {name!r}; known: {', '.join(PROBES)}")
        values = dict(PROBES[name])
        if self.epochs:  # the warm-up ends before the training does
            shorter = min(values.get("warmup_epochs", 0), self.epochs - 1)
            values |= {"epochs": self.epochs, "warmup_epochs": shorter}
        return values

    @property
    def split(self) -> str:
        """What maps are judged on: nothing is selected on either."""
        return "test" if self.several else "val"

    @property
    def played(self) -> bool:
        """Whether there are mosaics; never in a smoke run, whose probes know no class."""
        return not (self.smoke or self.several) and bool(self.grid_images)

    def smaller(self) -> dict[str, Any]:
        """What a smoke run has, whatever its question."""
        return {
            "networks": self.networks or self.recipe.networks[:1],
            "pretrainings": self.named_pretrainings()[:1]
            if self.pretrainings is None
            else self.pretrainings,
            "pretraining_epochs": self.pretraining_epochs or 1,
            "epochs": self.epochs or 2,
            "images": self.images or 8,
            "losses": (CE, BCE) if self.losses is None else self.losses,
            "seeds": (self.seeds or (0,))[:1],
        }

    @abstractmethod
    def of_backbone(self, backbone: Backbone, data: Dataset, seed: int) -> Iterator[Result]:
        """Everything that is asked about one backbone."""

    def beside(self, data: Dataset, seed: int) -> Iterator[Result]:
        """What is asked beside the probes."""
        return iter(())

    def results(self, data: Dataset) -> Iterator[Result]:
        self.check_flags(data)
        self.check_methods(data)
        for seed in self.seeds or (0,):
            for backbone in self.frozen(data, seed):
                yield from self.of_backbone(backbone, data, seed)
            yield from self.beside(data, seed)

    def check_flags(self, data: Dataset) -> None:
        """Refuse, by its flag, what no probe and no mosaic can be made of.

        Raises:
            ValueError: names the flag, the value and what is allowed.
        """
        self.check_epochs()
        for flag in ("epochs", "images", "grids"):
            if getattr(self, flag) < 0:
                raise ValueError(
                    f"--{flag} {getattr(self, flag)}: expected 1 or more, or 0 for the recipe's"
                )
        if not self.probes:
            raise ValueError(
                f"--probes: at least one is needed; known: {', '.join(Probe.registered)}"
            )
        for name in self.probes:
            Probe.class_named(name)
        self.named_losses()

    def check_methods(self, data: Dataset) -> None:
        """Refuse a method that is asked for and suits no backbone.

        Raises:
            ValueError: names it.
        """
        probed = [
            self.probe(backbone, Probe.named(kind), BCE, data, 0)
            for backbone in self.frozen(data, 0)
            for kind in self.probes
        ]
        for name in dict.fromkeys(self.attributions):
            method = Attribution.named(name, **self.judging.methods.get(name, {}))
            if not any(suits(method, one.architecture) for one in probed):
                networks = dict.fromkeys(one.backbone.architecture.name for one in probed)
                raise ValueError(
                    f"--attributions {name}: suits no probed network of {', '.join(networks)}"
                )

    def named_losses(self) -> tuple[str, ...]:
        """The losses that are asked for, each once; of images of several classes those that suit.

        Raises:
            ValueError: none, an unknown one, or none that suits the images.
        """
        names = self.compared if self.losses is None else self.losses
        unknown = [name for name in names if name not in LOSSES]
        if unknown or not names:
            what = f"unknown loss {unknown[0]!r}" if unknown else "at least one is needed"
            raise ValueError(f"--losses: {what}; known: {', '.join(LOSSES)}")
        found = tuple(n for n in dict.fromkeys(names) if not (self.several and n == CE))
        if not found:
            raise ValueError(
                f"--losses {CE}: images of {self.dataset} have several classes, and cross-entropy "
                f"needs one; take {BCE} or {BCE_UNIFORM}"
            )
        return found

    def named_pretrainings(self) -> tuple[str, ...]:
        """Of the backbones that are trained here."""
        if self.pretrainings is not None:
            return tuple(dict.fromkeys(self.pretrainings))
        return () if self.backbones and not self.networks else self.probing.pretrainings

    def published(self) -> list[PublishedBackbone]:
        """The files of --backbones."""
        return published_backbones(self.backbones)

    def frozen(self, data: Dataset, seed: int) -> list[Backbone]:
        """The backbones that are probed.

        Raises:
            ValueError: there are none, an unknown network, pre-training or file.
        """
        own = [
            self.backbone(network, name, data, seed)
            for name in self.named_pretrainings()
            for network in self.architectures()
        ]
        found = [*own, *self.published()]
        if not found:
            raise ValueError("--pretrainings: at least one is needed, or files by --backbones")
        return found

    def probe(
        self, backbone: Backbone, probe: Probe, loss: str, data: Dataset, seed: int
    ) -> ProbeTraining:
        """The training of a probe, as every sweep asks for it.

        Args:
            backbone: what it reads.
            probe: its form.
            loss: of LOSSES.
            data: what it learns.
            seed: of its weights and of the order of images.
        """
        return ProbeTraining(
            backbone=backbone,
            probe=probe,
            data=data,
            image_size_px=self.recipe.size_px,
            seed=seed,
            **LOSSES[loss],
            **self.probe_recipe,
        )

    def choosing(self, like: ProbeTraining) -> tuple[ProbeTraining, ...]:
        """The probes of one layer on the same backbone that choose common images."""
        return tuple(
            self.probe(like.backbone, Probe.named(kind), loss, like.data, like.seed)
            for kind, loss in CHOOSING
        )

    def methods(self, network: Network) -> list[Attribution]:
        """The methods for a network, without those that do not suit its kind.

        Raises:
            ValueError: an unknown one.
        """
        return methods_of(network, self.attributions, self.judging)

    def judged(
        self,
        training: ProbeTraining,
        methods: Sequence[Attribution],
        gauge: Gauge | None = None,
        *,
        images: bool = True,
    ) -> Iterator[Result]:
        """What the maps of a probe are asked.

        Args:
            training: the probe.
            methods: those that do not suit it are left out.
            gauge: what is done to its classes' mean; as trained by default.
            images: whether on images, too, and not on mosaics alone.
        """
        gauge, judging = gauge or AsTrained(), self.judging
        for method in methods:
            if not suits(method, training.architecture):
                continue
            if images:
                yield ProbeEvaluation(
                    of=training,
                    gauge=gauge,
                    attribution=method,
                    image_count=judging.images,
                    split=self.split,
                    seed=training.seed,
                )
            for choice in dict.fromkeys(self.grid_images) if self.played else ():
                fine: dict[str, Any] = {}
                if method.name in FINE and self.recipe.layout:
                    fine = {"smooth_px": FINE_PX, "smooth_kernel": "gaussian"}
                yield ProbeGridEvaluation(
                    of=training,
                    gauge=gauge,
                    attribution=method,
                    images=choice,
                    compared=self.choosing(training) if choice == "common" else (),
                    side=judging.side,
                    grids=judging.grids,
                    split=self.split,
                    seed=training.seed,
                    **fine,
                )

    def notes(self) -> list[str]:
        lines, judging = accounts(self.published()), self.judging
        lines.append(f"probes: {self.recipe_of_probes or self.probing.probes} recipe")
        lines.append(
            f"maps are judged on {judging.images or 'all'} images of {self.split}"
            + (
                f" and on {judging.grids} mosaics of {judging.side} x {judging.side} "
                f"({', '.join(self.grid_images)} images)"
                if self.played
                else ""
            )
        )
        if self.smoke and not self.several:
            lines.append("mosaics are left out: the probes of a smoke run know no class")
        if UNTRAINED in self.named_pretrainings():
            lines.append("probes of untrained networks are the control: their maps are not judged")
        if self.several and CE in (self.losses or self.compared):
            lines.append("ce is left out: images have several classes")
        return lines

    def savings(self, missing: Iterable[Result], images: Mapping[str, int]) -> list[str]:
        """How many forwards of backbones the packs leave out."""
        packs: dict[str, list[ProbeTraining]] = {}
        for result in missing:
            if isinstance(result, ProbeTraining):
                packs.setdefault(result.bundle, []).append(result)
        if not packs:
            return []
        probes = [probe for pack in packs.values() for probe in pack]
        apart = sum(probe.cost(dict(images)) for probe in probes)
        packed = sum(max(p.cost(dict(images)) for p in pack) for pack in packs.values())
        return [
            f"{len(probes)} probes in {len(packs)} packs: {packed:,.0f} forwards of one image "
            f"through backbones instead of {apart:,.0f}; the packs save {apart - packed:,.0f}"
        ]

    def report(self, folder: Path, result_ids: list[str]) -> Findings:
        # only here: drawing and MLflow take seconds to import, and flags must be checked at once
        from analysis.report import as_text, finished_runs, frames_of, write_files

        runs = finished_runs(self.question, self.tracking_uri, result_ids)
        frames = frames_of(runs)
        return Findings(text=as_text(runs, frames), files=write_files(runs, frames, folder))


@cache
def suits(method: Attribution, network: Network) -> bool:
    """Whether a method explains a network."""
    try:
        method.check(network)
    except ValueError:
        return False
    return True
