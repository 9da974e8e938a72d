"""Nearest neighbours: what features are worth before anything is trained on them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from data_pipelines.image_set import ImageSet
from trainables.models.network import Model, evaluating
from trainables.scoring import BATCH_SIZE
from trainables.ssl.encoder import Encoder

QUERIES = 256
"""Images that are compared with the bank at a time: bounds memory only."""


def knn_accuracy(
    bank: Tensor,
    bank_labels: np.ndarray,
    features: Tensor,
    labels: np.ndarray,
    *,
    neighbors: int = 20,
    temperature: float = 0.07,
) -> float:
    """Share of images whose class gets the most votes of their neighbours in the bank.

    Each of the nearest by cosine votes for its classes with weight exp(cosine / temperature). Of
    several classes of an image any counts as right; an image without any takes no part.

    Source: DINO (Caron et al., ICCV 2021), appendix E, after Wu et al., CVPR 2018.

    Args:
        bank: features (N, D) of the training images.
        bank_labels: (N, K), 1 where the class is present.
        features: (M, D) of the images that are judged.
        labels: (M, K)
        neighbors: that vote; all of a smaller bank. 20 in the paper.
        temperature: 0.07 in the paper.
    """
    voting, judged = bank_labels.any(1), labels.any(1)
    directions = functional.normalize(bank[torch.from_numpy(voting).to(bank.device)], dim=1)
    classes = torch.from_numpy(bank_labels[voting]).to(directions)
    queries = functional.normalize(features[torch.from_numpy(judged).to(features.device)], dim=1)
    hits = []
    wanted = torch.from_numpy(labels[judged]).to(queries.device)
    for query, right in zip(queries.split(QUERIES), wanted.split(QUERIES), strict=True):
        nearest = (query @ directions.T).topk(min(neighbors, len(directions)), dim=1)
        weights = (nearest.values / temperature).exp()
        votes = torch.einsum("mn,mnk->mk", weights, classes[nearest.indices])
        hits.append(right.gather(1, votes.argmax(1, keepdim=True)))
    return float(torch.cat(hits).double().mean()) if hits else float("nan")


def pooled_features(model: Model, images: ImageSet, device: torch.device) -> Tensor:
    """Pooled features of a split in eval mode, (N, D)."""
    encoder = Encoder(model)
    order = np.arange(len(images))
    chunks = np.split(order, range(BATCH_SIZE, len(order), BATCH_SIZE))
    with evaluating(model.module), torch.no_grad(), images.expecting(chunks):
        return torch.cat(
            [
                encoder.features(model.encode(torch.from_numpy(images.images(chunk)).to(device)))
                for chunk in chunks
            ]
        )
