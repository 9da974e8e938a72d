"""Slow, plain versions of the formulas, loop by loop in float64: the second statement of the truth.

They follow the definitions, share nothing with the code they check, and take one map at a time:
(H, W) arrays of float64 and bool. Losses take a map that was prepared (and upsampled) already.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np


def pixels(array: np.ndarray) -> list[tuple[int, int]]:
    """All (row, column) of an array."""
    return list(itertools.product(range(array.shape[0]), range(array.shape[1])))


def union_mask(boxes: Sequence[Sequence[int]], size: tuple[int, int]) -> np.ndarray:
    """Union of half-open boxes (xmin, ymin, xmax, ymax) on an image of (H, W) pixels."""
    mask = np.zeros(size, dtype=bool)
    for row, column in pixels(mask):
        for xmin, ymin, xmax, ymax in boxes:
            if xmin <= column < xmax and ymin <= row < ymax:
                mask[row, column] = True
    return mask


def upsampled(small: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear interpolation with half-pixel centers (align_corners False)."""
    large = np.zeros(size)
    for row, column in pixels(large):
        weights = []
        for position, length, target in zip((row, column), small.shape, size, strict=True):
            source = max((position + 0.5) * length / target - 0.5, 0.0)
            low = min(int(source), length - 1)
            weights.append(((low, 1 - (source - low)), (min(low + 1, length - 1), source - low)))
        for (i, a), (j, b) in itertools.product(*weights):
            large[row, column] += a * b * small[i, j]
    return large


def positive_part(values: np.ndarray) -> np.ndarray:
    """What is above zero."""
    out = np.zeros(values.shape)
    for p in pixels(values):
        out[p] = values[p] if values[p] > 0 else 0.0
    return out


def over_largest(values: np.ndarray) -> np.ndarray:
    """Divided by the largest absolute value, if there is one."""
    largest = max(abs(float(values[p])) for p in pixels(values))
    out = np.array(values, dtype=np.float64)
    if largest > 0:
        for p in pixels(values):
            out[p] = values[p] / largest
    return out


def prepared(name: str, values: np.ndarray) -> np.ndarray:
    """What each loss does at native resolution."""
    if name == "energy":
        return values
    return over_largest(values if name == "rrr_star" else positive_part(values))


def energy(values: np.ndarray, mask: np.ndarray) -> float:
    """One minus the share of positive importance inside the mask."""
    total = sum(float(values[p]) for p in pixels(values) if values[p] > 0)
    inside = sum(float(values[p]) for p in pixels(values) if values[p] > 0 and mask[p])
    return 1 - inside if total < 1e-7 else 1 - inside / total


def l1(values: np.ndarray, mask: np.ndarray) -> float:
    """Mean distance to the mask."""
    return sum(abs(float(values[p]) - float(mask[p])) for p in pixels(values)) / values.size


def ppce(values: np.ndarray, mask: np.ndarray) -> float:
    """Mean of -log inside the mask, bounded at 100; 0 for an empty mask."""
    terms = []
    for p in pixels(values):
        if mask[p]:
            terms.append(min(-math.log(values[p]), 100.0) if values[p] > 0 else 100.0)
    return sum(terms) / len(terms) if terms else 0.0


def rrr_star(values: np.ndarray, mask: np.ndarray) -> float:
    """Sum of squares outside the mask."""
    return sum(float(values[p]) ** 2 for p in pixels(values) if not mask[p])


def epg(values: np.ndarray, mask: np.ndarray) -> float:
    """Share of positive importance inside the mask; NaN without positive importance."""
    total = sum(float(values[p]) for p in pixels(values) if values[p] > 0)
    inside = sum(float(values[p]) for p in pixels(values) if values[p] > 0 and mask[p])
    return math.nan if total < 1e-7 else inside / total


def on_object_epg(values: np.ndarray, segment: np.ndarray, mask: np.ndarray) -> float:
    """Share of the boxes' positive importance on pixels of the object (1); NaN without any."""
    if not (segment == 1).any():
        return math.nan
    inside = sum(max(values[p], 0.0) for p in pixels(values) if mask[p])
    on_object = sum(max(values[p], 0.0) for p in pixels(values) if mask[p] and segment[p] == 1)
    return math.nan if inside < 1e-7 else on_object / inside


def box_iou(values: np.ndarray, mask: np.ndarray, threshold: float) -> float:
    """Intersection over union of mask and thresholded map; NaN if both are empty."""
    positive = positive_part(values)
    low, high = float(positive.min()), float(positive.max())
    union = intersection = 0
    for p in pixels(positive):
        if high == 0:
            scaled = 0.0
        elif high - low < 1e-7:
            scaled = positive[p] / high
        else:
            scaled = (positive[p] - low) / (high - low)
        union += bool(scaled > threshold or mask[p])
        intersection += bool(scaled > threshold and mask[p])
    return intersection / union if union else math.nan


def micro_f1(logits: np.ndarray, labels: np.ndarray) -> float:
    """2 TP / (2 TP + FP + FN), over all images and classes."""
    hits = misses = alarms = 0
    for p in pixels(logits):
        predicted, present = logits[p] >= 0, labels[p] == 1
        hits += bool(predicted and present)
        misses += bool(present and not predicted)
        alarms += bool(predicted and not present)
    return 2 * hits / (2 * hits + misses + alarms)


def average_precision(logits: np.ndarray, labels: np.ndarray) -> float:
    """Sum over falling thresholds of precision times gain in recall; equal logits go together."""
    area = recall_before = 0.0
    for threshold in sorted(set(logits.tolist()), reverse=True):
        chosen = [label for logit, label in zip(logits, labels, strict=True) if logit >= threshold]
        recall = sum(chosen) / sum(labels)
        area += sum(chosen) / len(chosen) * (recall - recall_before)
        recall_before = recall
    return float(area)


def weak_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Points that no other weakly dominates, the first of equals kept, pair by pair."""
    kept = []
    for i, one in enumerate(points):
        beaten = False
        for j, other in enumerate(points):
            as_good = all(b >= a for a, b in zip(one, other, strict=True))
            better = any(b > a for a, b in zip(one, other, strict=True))
            beaten = beaten or (as_good and (better or j < i))
        if not beaten:
            kept.append(i)
    return kept


def strict_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Points that no other beats in every objective, pair by pair."""
    return [
        i
        for i, one in enumerate(points)
        if not any(all(b > a for a, b in zip(one, other, strict=True)) for other in points)
    ]


def covered_share(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float:
    """Share of b for which some point of a is at least as good in every objective."""
    covered = 0
    for one in b:
        covered += any(all(x >= y for x, y in zip(other, one, strict=True)) for other in a)
    return covered / len(b)


def cells_below(points: Sequence[Sequence[int]], size: int) -> int:
    """Unit cells of the cube [0, size]^d that lie below some point with whole coordinates."""
    d = len(points[0])
    return sum(
        any(all(c < x for c, x in zip(cell, point, strict=True)) for point in points)
        for cell in itertools.product(range(size), repeat=d)
    )


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two vectors."""
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(
        sum(x * x for x in a) * sum(y * y for y in b)
    )


def contrastive_loss(
    queries: np.ndarray, keys: np.ndarray, queue: np.ndarray, temperature: float
) -> float:
    """MoCo, equation 1: -log of the share of the image's own key, mean over the batch."""
    losses = []
    for query, key in zip(queries, keys, strict=True):
        own = math.exp(cosine(query, key) / temperature)
        others = sum(math.exp(cosine(query, other) / temperature) for other in queue)
        losses.append(-math.log(own / (own + others)))
    return sum(losses) / len(losses)


def bootstrap_loss(predictions: Sequence[np.ndarray], targets: Sequence[np.ndarray]) -> float:
    """BYOL, equation 2, both ways: squared distances at length 1, mean over the batch."""
    total = 0.0
    for mine, other in ((0, 1), (1, 0)):
        for p, t in zip(predictions[mine], targets[other], strict=True):
            p, t = p / math.sqrt(sum(p * p)), t / math.sqrt(sum(t * t))
            total += sum((p - t) ** 2) / len(predictions[mine])
    return total


def softmax(values: np.ndarray) -> np.ndarray:
    """Of a vector."""
    powers = [math.exp(v - max(values)) for v in values]
    return np.array([p / sum(powers) for p in powers])


def distillation_loss(
    student: Sequence[np.ndarray],
    teacher: Sequence[np.ndarray],
    center: np.ndarray,
    student_temperature: float,
    teacher_temperature: float,
) -> float:
    """DINO, algorithm 1: cross-entropy over all pairs of different views, mean over the batch."""
    losses = []
    for a, wanted in enumerate(teacher):
        for b, found in enumerate(student):
            if a != b:
                for t, s in zip(wanted, found, strict=True):
                    p = softmax((t - center) / teacher_temperature)
                    q = softmax(s / student_temperature)
                    losses.append(-sum(x * math.log(y) for x, y in zip(p, q, strict=True)))
    return sum(losses) / len(losses)
