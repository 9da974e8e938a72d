"""What streams to an actor: the wanted images, decoded, with class maps where a protocol asks."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipelines.class_map import unpack
from tests.trainables.scenes import BASELINE
from trainables.attribution.gradient import InputXGradient
from trainables.metrics.on_object import OnObjectEpg
from trainables.protocol_evaluation import ProtocolEvaluation
from trainables.source import source_fingerprint
from trainables.streamed_evaluation import ScoringActor, decode_wanted

EVALUATION = ProtocolEvaluation(
    of=BASELINE, attribution=InputXGradient(), protocols=(OnObjectEpg(),)
)


def encoded(pixels: np.ndarray, form: str) -> bytes:
    """As a published file."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, form)
    return written.getvalue()


@pytest.fixture
def batch() -> dict[str, np.ndarray]:
    """Three rows of a shard; the second is not annotated."""
    pixels = np.full((8, 8, 3), 7, dtype=np.uint8)
    maps = [encoded(np.full((8, 8), k, dtype=np.uint8), "PNG") for k in (1, 0, 2)]
    maps[1] = None
    return {
        "image_id": np.array(["a", "b", "c"], dtype=object),
        "image": np.array([encoded(pixels, "PNG")] * 3, dtype=object),
        "segmentation": np.array(maps, dtype=object),
        "width": np.full(3, 8),
        "height": np.full(3, 8),
    }


def test_class_maps_are_packed_beside_the_pixels_of_wanted_images(batch):
    columns = decode_wanted(batch, 4, 3, frozenset({"b", "c"}))
    assert columns["image_id"].tolist() == ["b", "c"]
    assert columns["pixels"].shape == (2, 4, 4, 3)
    assert columns["decode_error"].tolist() == ["", ""]
    assert columns["class_map"][0] == b""
    assert (unpack(columns["class_map"][1], 4) == 2).all()
    assert "class_map" not in decode_wanted(
        {name: batch[name] for name in ("image_id", "image")}, 4, 3, frozenset({"b"})
    )


def test_a_class_map_that_is_none_of_the_image_makes_the_image_damaged(batch):
    columns = decode_wanted(batch, 4, 1, frozenset("abc"))
    assert columns["decode_error"].tolist()[:2] == ["", ""]
    assert columns["decode_error"][2] == "segmentation holds 2, which is none of 1 classes"


def test_an_actor_hands_class_maps_to_its_scorer(batch, tmp_path):
    manifest: Any = None
    actor = ScoringActor(
        (EVALUATION,), str(tmp_path), str(tmp_path), manifest, source_fingerprint()
    )
    handed = []
    vars(actor)["scorer"] = lambda *arguments: handed.append(arguments) or 1
    actor(decode_wanted(batch, 4, 3, frozenset("abc")))
    ((parts, image_ids, pixels, skipped, maps),) = handed
    assert (parts, image_ids, skipped) == (tmp_path, ["a", "b", "c"], {})
    assert pixels.shape == (3, 3, 4, 4)
    assert [bool(one) for one in maps] == [True, False, True]
