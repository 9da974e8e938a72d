"""Our methods against captum, TorchCAM and grad-cam on a small network in float64.

What the libraries do differently is stated in trainables/attribution/README.md; each option that
reproduces it is held to the library here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import captum.attr
import pytest
import pytorch_grad_cam
import torch
import torchcam.methods
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor

import trainables.attribution  # noqa: F401  registers
from tests.trainables.networks import PATHS, pictures, tiny_model
from trainables.attribution import cam_pp
from trainables.attribution.attribution import Attribution
from trainables.batch import Batch
from trainables.models.network import evaluating
from trainables.passes import Passes, upsample

TARGETS = torch.tensor([2, 0, 3, 1])
LAYERS = ("mid1", "mid3", "final")
each_layer = pytest.mark.parametrize("layer", LAYERS)


def ours(name: str, **values: Any) -> Tensor:
    """Native maps of four images."""
    model, method = tiny_model(), Attribution.named(name, **values)
    with evaluating(model.module), Passes(model, Batch.single(pictures(4), TARGETS)) as passes:
        return method(passes)


def close(maps: Tensor, theirs: Tensor, relative: float = 1e-9) -> None:
    """Equal to a fraction of the largest value, and not all zero."""
    assert maps.abs().max() > 0
    theirs = theirs.detach().to(maps)
    torch.testing.assert_close(maps, theirs, rtol=0, atol=relative * float(theirs.abs().max()))


class TestCaptum:
    """Channels are reduced by us: captum returns one value a channel."""

    @pytest.mark.parametrize(
        ("name", "theirs"),
        [
            (
                "gradient",
                lambda net, x: captum.attr.Saliency(net).attribute(x, TARGETS, abs=False).sum(1),
            ),
            (
                "saliency",
                lambda net, x: captum.attr.Saliency(net).attribute(x, TARGETS).amax(1),
            ),
            (
                "input_x_gradient",
                lambda net, x: captum.attr.InputXGradient(net).attribute(x, TARGETS).sum(1),
            ),
            (
                "integrated_gradients",
                lambda net, x: (
                    captum.attr.IntegratedGradients(net).attribute(x, target=TARGETS).sum(1)
                ),
            ),
            (
                "guided_backprop",
                lambda net, x: captum.attr.GuidedBackprop(net).attribute(x, TARGETS).sum(1),
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_methods_of_the_input(
        self, name: str, theirs: Callable[[torch.nn.Module, Tensor], Tensor]
    ) -> None:
        images = pictures(4).requires_grad_()
        close(ours(name), theirs(tiny_model().module, images))

    def test_occlusion_of_the_logit(self):
        theirs = captum.attr.Occlusion(tiny_model().module).attribute(
            pictures(4), (3, 4, 4), strides=(3, 3, 3), target=TARGETS
        )
        maps = ours("occlusion", window_px=4, stride_px=3, score="logit")
        close(maps, theirs.mean(1), 1e-6)  # captum averages in float32

    @each_layer
    @pytest.mark.parametrize("relu", [False, True])
    def test_grad_cam_which_is_signed_there_by_default(self, layer, relu):
        net = tiny_model().module
        method = captum.attr.LayerGradCam(net, net.get_submodule(PATHS[layer]))
        theirs = method.attribute(pictures(4), TARGETS, relu_attributions=relu)
        close(ours("grad_cam", layer=layer, relu=relu), theirs.squeeze(1))


class TestTorchCam:
    """Exact, and in [0, 1] by default; with its lost denominators and last samples as options."""

    def maps(self, name: str, layer: str, *, normalized: bool = True) -> Tensor:
        net = tiny_model().module
        with getattr(torchcam.methods, name)(net, PATHS[layer]) as extractor:
            scores = net(pictures(4))
            return extractor(TARGETS.tolist(), scores, normalized=normalized)[0]

    @each_layer
    @pytest.mark.parametrize("normalize", [False, True])
    @pytest.mark.parametrize(
        ("name", "values", "their_name"),
        [
            ("grad_cam", {}, "GradCAM"),
            ("grad_cam_pp", {"weights": "torchcam"}, "GradCAMpp"),
            ("xgrad_cam", {}, "XGradCAM"),
            ("layer_cam", {}, "LayerCAM"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_methods_of_one_gradient(self, name, values, their_name, layer, normalize):
        theirs = self.maps(their_name, layer, normalized=normalize)
        # XGradCAM adds 1e-8 to each channel's sum
        relative = 1e-6 if name == "xgrad_cam" else 1e-9
        close(ours(name, layer=layer, normalize=normalize, **values), theirs, relative)

    @each_layer
    def test_the_published_grad_cam_pp_is_another(self, layer):
        theirs = self.maps("GradCAMpp", layer)
        assert (ours("grad_cam_pp", layer=layer, normalize=True) - theirs).abs().max() > 0.01

    @each_layer
    def test_smooth_grad_cam_pp_with_the_same_noise(self, layer, monkeypatch):
        generator = torch.Generator().manual_seed(3)
        noise = torch.randn(4, 4, 3, 12, 12, generator=generator, dtype=torch.float64)
        net = tiny_model().module
        drawn = iter(0.3 * noise)
        with torchcam.methods.SmoothGradCAMpp(net, PATHS[layer]) as extractor:
            monkeypatch.setattr(extractor._distrib, "sample", lambda size: next(drawn))
            net(pictures(4))
            theirs = extractor(TARGETS.tolist())[0]
        monkeypatch.setattr(
            cam_pp,
            "normal",
            lambda like, seed, image_ids, samples, purpose: torch.stack(
                [noise[s, int(i)] for i, s in zip(image_ids, samples, strict=True)]
            ),
        )
        options = {"layer": layer, "normalize": True}
        close(ours("smooth_grad_cam_pp", last_sample=True, **options), theirs)
        published = ours("smooth_grad_cam_pp", **options)
        assert (published - theirs).abs().max() > 0.001

    def test_score_cam_where_masks_need_no_upsampling(self):
        """TorchCAM scales its masks to [0, 1] before the upsampling, the paper after it."""
        close(ours("score_cam", layer="mid1"), self.maps("ScoreCAM", "mid1", normalized=False))
        apart = ours("score_cam", layer="final", normalize=True) - self.maps("ScoreCAM", "final")
        assert 0 < apart.abs().max() < 0.05


class TestGradCamPackage:
    """grad-cam scales each map to [0, 1], resizes it, and scales it again; in float32."""

    def maps(self, name: str, layer: str) -> Tensor:
        net = tiny_model().module
        targets = [ClassifierOutputTarget(target) for target in TARGETS.tolist()]
        with getattr(pytorch_grad_cam, name)(net, [net.get_submodule(PATHS[layer])]) as method:
            return torch.from_numpy(method(pictures(4), targets))

    def scaled(self, maps: Tensor) -> Tensor:
        """What they do to a map, (N, 12, 12)."""

        def scaled_once(maps: Tensor) -> Tensor:
            above = maps - maps.amin((1, 2), keepdim=True)
            return above / (1e-7 + above.amax((1, 2), keepdim=True))

        return scaled_once(upsample(scaled_once(maps), (12, 12), "bilinear"))

    @each_layer
    @pytest.mark.parametrize(
        ("name", "values", "their_name"),
        [
            ("grad_cam", {}, "GradCAM"),
            ("grad_cam_pp", {"epsilon": 1e-6}, "GradCAMPlusPlus"),
            ("xgrad_cam", {}, "XGradCAM"),
            ("layer_cam", {}, "LayerCAM"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_methods_of_one_gradient(self, name, values, their_name, layer):
        maps = self.scaled(ours(name, layer=layer, **values))
        close(maps, self.maps(their_name, layer), 1e-5)

    @each_layer
    def test_their_epsilon_rules_grad_cam_pp_where_gradients_are_small(self, layer):
        theirs = self.maps("GradCAMPlusPlus", layer)
        published = self.scaled(ours("grad_cam_pp", layer=layer))
        assert (published - theirs).abs().max() > 1e-3

    def test_score_cam_where_masks_need_no_upsampling(self):
        """They upsample with align_corners."""
        theirs = self.maps("ScoreCAM", "mid1")
        close(self.scaled(ours("score_cam", layer="mid1")), theirs, 1e-5)
