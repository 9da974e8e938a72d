"""Published numbers, to stand beside ours where methods were run exactly as published.

Source: IDSDS (Hesse et al., NeurIPS D&B 2024), tables 4 to 7: ResNet-50 on ImageNet's validation
images; zero baseline, 16 patches; IDS with fixed maps. B-cos and BagNet-33 have their own networks.
"""

from __future__ import annotations

from collections.abc import Mapping

AS_RUN = "idsds_as_run"
"""The set of methods that do exactly what the authors' code did; no other stands beside it."""
NETWORK, DATASET = "resnet50", "imagenet"
"""What the tables were made with."""
PROTOCOLS = ("idsds", "ids", "sds", "funny_birds")
"""Columns of PUBLISHED by the keys of our protocols; FunnyBirds' has none here."""
PUBLISHED: Mapping[str, tuple[float, float, float, float]] = {
    "IxG": (0.070, 0.124, 0.056, 0.545),
    "IxG-SG": (-0.005, 0.188, -0.006, 0.480),
    "IG": (0.196, 0.162, 0.208, 0.587),
    "IG-U": (0.255, 0.198, 0.261, 0.562),
    "IG-SG": (0.049, 0.224, 0.090, 0.479),
    "IxG abs.": (0.103, 0.242, 0.146, 0.506),
    "IxG-SG abs.": (0.065, 0.274, 0.155, 0.538),
    "IG abs.": (0.111, 0.264, 0.174, 0.523),
    "IG-U abs.": (0.125, 0.273, 0.209, 0.515),
    "IG-SG abs.": (0.073, 0.286, 0.164, 0.532),
    "IG-SG-SQ": (0.075, 0.395, 0.168, 0.519),
    "Saliency": (0.127, 0.196, 0.183, 0.517),
    "RISE": (0.131, 0.480, 0.192, 0.576),
    "RISE-U": (0.065, 0.412, 0.119, 0.549),
    "Grad-CAM": (0.236, 0.537, 0.342, 0.555),
    "Grad-CAM++": (0.213, 0.528, 0.319, 0.559),
    "SG-CAM++": (0.102, 0.510, 0.220, 0.555),
    "XGrad-CAM": (0.236, 0.537, 0.342, 0.555),
    "Layer-CAM": (0.192, 0.523, 0.302, 0.554),
}
ACCURACIES: Mapping[str, tuple[float, float, float, float]] = {
    "resnet18": (0.6976, 0.7055, 0.3084, 0.4342),
    "resnet50": (0.7612, 0.7692, 0.4194, 0.5397),
    "resnet101": (0.7738, 0.7790, 0.4530, 0.5590),
    "resnet152": (0.7832, 0.7878, 0.4691, 0.5752),
    "wide_resnet50_2": (0.7847, 0.7847, 0.4742, 0.5768),
    "fixup_resnet50": (0.7581, 0.7514, 0.4250, 0.4934),
    "xresnet50": (0.7351, 0.7328, 0.3946, 0.4805),
    "vgg16": (0.7159, 0.7207, 0.3639, 0.4631),
    "vit_base_patch16": (0.8143, 0.8274, 0.5792, 0.6455),
    "bcos_resnet50": (0.7588, 0.7581, 0.3413, 0.3826),
    "bagnet33": (0.6421, 0.6837, 0.4736, 0.5521),
}
"""Table 3 of the same paper: top-1 before and after fine-tuning, then with the worst patch deleted,
before and after."""
OF_ITS_OWN: Mapping[str, tuple[str, float]] = {
    "B-cos": ("bcos_resnet50", 0.314),
    "BagNet-33": ("bagnet33", 0.797),
}
"""IDSDS of methods that come with a network: the network, and the number."""
NAMES: Mapping[tuple[str, str, bool, bool], str] = {
    ("input_x_gradient", "", False, False): "IxG",
    ("smooth_grad_input_x_gradient", "", False, False): "IxG-SG",
    ("integrated_gradients", "zero", False, False): "IG",
    ("integrated_gradients", "uniform", False, False): "IG-U",
    ("smooth_grad_integrated_gradients", "zero", False, False): "IG-SG",
    ("input_x_gradient", "", True, False): "IxG abs.",
    ("smooth_grad_input_x_gradient", "", True, False): "IxG-SG abs.",
    ("integrated_gradients", "zero", True, False): "IG abs.",
    ("integrated_gradients", "uniform", True, False): "IG-U abs.",
    ("smooth_grad_integrated_gradients", "zero", True, False): "IG-SG abs.",
    ("smooth_grad_integrated_gradients", "zero", False, True): "IG-SG-SQ",
    ("saliency", "", False, False): "Saliency",
    ("rise", "zero", False, False): "RISE",
    ("rise", "uniform", False, False): "RISE-U",
    ("grad_cam", "", False, False): "Grad-CAM",
    ("grad_cam_pp", "", False, False): "Grad-CAM++",
    ("smooth_grad_cam_pp", "", False, False): "SG-CAM++",
    ("xgrad_cam", "", False, False): "XGrad-CAM",
    ("layer_cam", "", False, False): "Layer-CAM",
    ("rollout", "", False, False): "Rollout",
    ("transformer_attribution", "", False, False): "CheferLRP",
    ("bcos", "", False, False): "B-cos",
    ("bagnet", "", False, False): "BagNet-33",
}
"""What the paper calls a method of the set, by its name, baseline, and whether maps are absolute or
squared."""


def paper_name(
    of_set: str, attribution: str, baseline: str = "", absolute: bool = False, squared: bool = False
) -> str:
    """What the paper calls a method; empty unless it was run as the paper's code ran it."""
    key = (attribution, baseline, absolute, squared)
    return NAMES.get(key, "") if of_set == AS_RUN else ""


def published(name: str, protocol: str) -> float:
    """The paper's number on the network that it took; NaN where it has none."""
    if name in OF_ITS_OWN:
        return OF_ITS_OWN[name][1] if protocol == "idsds" else float("nan")
    if name not in PUBLISHED or protocol not in PROTOCOLS:
        return float("nan")
    return PUBLISHED[name][PROTOCOLS.index(protocol)]


def is_papers(name: str, network: str, dataset: str) -> bool:
    """Whether this is the network and the data that the paper's number of a method is of."""
    return dataset == DATASET and network == OF_ITS_OWN.get(name, (NETWORK, 0.0))[0]
