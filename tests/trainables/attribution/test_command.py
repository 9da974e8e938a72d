"""The command that draws a panel, as people run it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from trainables.attribution.__main__ import Look, look, main
from trainables.models.small_resnet import SmallResNet


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Weights of a small ResNet with ten classes, and nothing learned."""
    path = tmp_path / "net.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(SmallResNet().build(10).module.state_dict(), path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> tuple[Path, ...]:
    """Two pictures of noise."""
    paths = tuple(tmp_path / f"photo{k}.png" for k in range(2))
    for seed, path in enumerate(paths):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def test_own_images_and_weights(tmp_path, checkpoint, photos, capsys):
    out = tmp_path / "panel.png"
    methods = ("input_x_gradient", "integrated_gradients", "grad_cam")
    look(Look(checkpoint=checkpoint, images=photos, size_px=64, methods=methods, out=out))
    said = capsys.readouterr().out
    with Image.open(out) as picture:
        assert picture.format == "PNG"
        assert picture.width > 400
    assert "[3/3] grad_cam" in said
    assert "self-check holds: integrated_gradients, path_completeness" in said
    assert "3 methods on 2 images" in said
    # 1 for gradient and class activation map, 50 for the path, per image
    assert "102 image-forwards" in said


def test_methods_that_do_not_suit_are_left_out_of_all_with_the_reason(
    tmp_path, checkpoint, photos, capsys, monkeypatch
):
    from trainables.attribution.attribution import Attribution

    few = {name: Attribution.registered[name] for name in ("gradient", "bcos", "bagnet")}
    monkeypatch.setattr(Attribution, "registered", few)
    out = tmp_path / "panel.png"
    look(Look(checkpoint=checkpoint, images=photos, size_px=64, out=out))
    said = capsys.readouterr().out
    assert "not bcos: " in said
    assert "not bagnet: " in said
    assert "1 methods on 2 images" in said


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "resnet51"], "unknown network 'resnet51'"),
        (["--methods", "cam"], "unknown attribution 'cam'"),
        (["--methods", "bcos"], "B-cos"),
        (["--images", "nowhere.png"], "--images need --checkpoint"),
        (["--images", "nowhere.png", "--checkpoint", "no.pt"], "no such file"),
        (["--checkpoint", "no.pt"], "no.pt"),
        (["--out", "no/folder/maps.png"], "its folder does not exist"),
        (["--model", "no_package:build"], "no_package"),
        (["--plugins", "no.py"], "no such file"),
    ],
)
def test_bad_input_ends_in_one_line(flags, message, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["attribution", "--storage-path", str(tmp_path), *flags])
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line
