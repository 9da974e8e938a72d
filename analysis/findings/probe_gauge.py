"""The gauge: what all classes of a last layer have in common, which CE cannot see; P10."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from analysis.findings.contrast import Contrast, ProbeFinding, standing
from analysis.findings.finding import FAILS, HOLDS, NAN, UNDECIDED
from analysis.findings.probe_evidence import Probe, ProbeEvidence, Scored
from analysis.findings.probe_losses import named
from analysis.findings.probing_numbers import SHIFT
from analysis.probing import AS_TRAINED, CE, CENTERED, EXCHANGED, LOSSES, SHIFTED
from analysis.probing_rows import Column, Gain, gain, level, over_seeds
from analysis.tables import percent

SAME_LOSS = 1e-3
"""A cross-entropy that moves by less is unchanged, up to single precision of large logits."""
NO_EFFECT = "there is no effect as trained that could go"
GAUGE_COLUMNS = ("ce", "ce_centered", "bce", "bce_centered", "ce_exchanged")


@dataclass(frozen=True)
class GainIsGauge(ProbeFinding):
    """P10, the gauge: the class mean of the last layer, which CE cannot see."""

    id: ClassVar[str] = "P10b"
    claim: ClassVar[str] = "Part of BCE's effect is the gauge (ours)"
    says: ClassVar[str] = (
        "What BCE adds to GridPG over CE, or takes from it, shrinks when the class mean is taken "
        "out of the last layer of both, which changes no softmax; beside it, CE's own probes when "
        "they carry BCE's class mean. On the same mosaics, where there is an effect at all."
    )
    source: ClassVar[str] = "ours; spec of the shift demonstration, consequence (ii)"

    def compare(self, evidence: ProbeEvidence) -> Iterator[Contrast]:
        for probe, first in evidence.against_ce():
            for scored, protocol, own in evidence.scored(probe, "grid_pg", CENTERED):
                gains = gauge_gains(evidence, probe, scored, protocol)
                rival = evidence.partner(probe)
                common: dict[str, object] = {
                    "why": evidence.unread(probe, rival),
                    "metric": protocol,
                    "method": scored.method,
                    "images": scored.images,
                    **named(probe, scored),
                }
                decides = first and own
                results = tuple(
                    r
                    for p, gauge in ((probe, AS_TRAINED), (probe, CENTERED), (rival, CENTERED))
                    for r in evidence.evaluation_ids(p, scored._replace(gauge=gauge))
                )
                raw, centered = gains.get("raw"), gains.get("centered")
                if raw and raw.effect < 0:
                    raw, centered = raw.reversed, centered and centered.reversed
                both = raw.minus(centered) if raw and centered else None
                judged = Contrast.of(
                    both,
                    "above",
                    what=f"effect of {LOSSES[probe.loss]}, as trained over centered",
                    results=results,
                    decides=decides,
                    **common,  # type: ignore[arg-type]
                )
                if judged.read and raw and not raw.interval[0] > 0:
                    judged = replace(judged, verdict=UNDECIDED, why=NO_EFFECT)
                yield judged
                shown = (
                    ("centered", f"{LOSSES[probe.loss]} over CE, both centered"),
                    ("carried", f"CE carrying {LOSSES[probe.loss]}'s class mean, over CE"),
                    ("ce", "CE centered, over CE"),
                )
                for name, what in shown:
                    if name in gains:
                        yield Contrast.of(
                            gains[name],
                            "above",
                            what=what,
                            results=results,
                            decides=False,
                            **common,  # type: ignore[arg-type]
                        )

    def note(self, contrasts: Sequence[Contrast], evidence: ProbeEvidence) -> str:
        """How much of the effect is gone without the class mean, over all that is read."""
        read = [
            (c.value, c.against)
            for c in contrasts
            if c.decides and c.read and c.value == c.value and c.why != NO_EFFECT
        ]
        if not read:
            return ""
        effect, left = np.mean(read, axis=0).tolist()
        return (
            f"mean effect on GridPG, whatever its sign: {100 * effect:.1f} as trained, "
            f"{100 * left:.1f} in its direction with both centred, so that "
            f"{percent(1 - left / effect, 0)} % is the gauge; {standing(contrasts)}"
        )


def gauge_gains(
    evidence: ProbeEvidence, probe: Probe, scored: Scored, protocol: str
) -> dict[str, Gain]:
    """What the class mean of the last layer does; each over the seeds that have it.

    Returns:
        Those that can be had of ``raw`` and ``centered`` (BCE over CE, both as trained or both
        centered), ``carried`` (CE with BCE's mean over CE) and ``ce`` (CE centered over CE).
    """
    rival = evidence.partner(probe)
    raw, centered = scored._replace(gauge=AS_TRAINED), scored._replace(gauge=CENTERED)
    found = {
        "raw": evidence.gain((probe, raw), (rival, raw), protocol),
        "centered": evidence.gain((probe, centered), (rival, centered), protocol),
        "carried": carried(evidence, probe, scored, protocol),
        "ce": evidence.gain((rival, centered), (rival, raw), protocol),
    }
    return {name: one for name, one in found.items() if one is not None}


def carried(evidence: ProbeEvidence, probe: Probe, scored: Scored, protocol: str) -> Gain | None:
    """What CE's probe gains by the class mean of this BCE probe."""
    rival = evidence.partner(probe)
    exchanged = scored._replace(gauge=f"{EXCHANGED} {probe.loss}")
    raw = scored._replace(gauge=AS_TRAINED)
    return evidence.gain((rival, exchanged), (rival, raw), protocol)


def gauges(evidence: ProbeEvidence) -> pd.DataFrame:
    """GridPG of CE and BCE probes as trained, centered, and CE carrying BCE's class mean.

    Returns:
        Columns dataset, backbone, pretraining, probe, loss, variant, method, images, protocol,
        GAUGE_COLUMNS (means), ``gain``, ``gain_low``, ``gain_high``, the same of ``centered_gain``,
        and ``share`` of the gain, of either sign, that goes with the class mean; NaN where the
        gain's interval includes 0.
    """
    rows = []
    for probe, _ in evidence.against_ce():
        for scored, protocol, _ in evidence.scored(probe, "grid_pg", CENTERED):
            gains = gauge_gains(evidence, probe, scored, protocol)
            raw, centered = gains.get("raw"), gains.get("centered")
            row = {**named(probe, scored), "method": scored.method, "images": scored.images}
            row |= {"protocol": protocol}
            numbers = dict.fromkeys(GAUGE_COLUMNS, NAN)
            if raw is not None:
                numbers |= {"ce": raw.against, "bce": raw.value}
            if centered is not None:
                numbers |= {"ce_centered": centered.against, "bce_centered": centered.value}
            if "carried" in gains:
                numbers["ce_exchanged"] = gains["carried"].value
            for name, one in (("gain", raw), ("centered_gain", centered)):
                low, high = one.interval if one is not None else (NAN, NAN)
                effect = one.effect if one is not None else NAN
                numbers |= {name: effect, f"{name}_low": low, f"{name}_high": high}
            apart = numbers["gain_low"] > 0 or numbers["gain_high"] < 0
            left = numbers["centered_gain"] / numbers["gain"] if apart else NAN
            rows.append({**row, **numbers, "share": 1 - left})
    ends = [f"{n}{end}" for n in ("gain", "centered_gain") for end in ("", "_low", "_high")]
    place = ["dataset", "backbone", "pretraining", "probe", "loss", "variant", "method", "images"]
    return pd.DataFrame(rows, columns=[*place, "protocol", *GAUGE_COLUMNS, *ends, "share"])


@dataclass(frozen=True)
class ShiftMovesMaps(ProbeFinding):
    """P10, the shift demonstration."""

    id: ClassVar[str] = "P10c"
    claim: ClassVar[str] = "A common shift moves GridPG, not CE"
    says: ClassVar[str] = (
        "The same weight added to all classes changes GridPG of CE probes and leaves their "
        "cross-entropy as it is. The direction is that of the mean feature (ours: the paper does "
        "not say which); the largest alpha decides, either way: it can be made to look better or "
        "worse."
    )
    source: ClassVar[str] = "section 3, figure 2"

    def compare(self, evidence: ProbeEvidence) -> Iterator[Contrast]:
        table = shifts(evidence)
        place = ["dataset", "backbone", "pretraining", "probe", "loss", "variant", "method"]
        for _, part in table.groupby([*place, "images"], sort=False):
            largest = part["alpha"].abs().max()
            for row in part[part["alpha"] != 0].to_dict("records"):
                apart = row["gain_low"] > 0 or row["gain_high"] < 0
                moved = row["ce_loss"] - row["ce_loss_before"]
                same = not abs(moved) > SAME_LOSS  # of a loss that no run says, too
                open_ = row["gain_low"] != row["gain_low"]
                verdict = UNDECIDED if open_ or (same and not apart) else FAILS
                why = "no scores of the unshifted probe" if open_ else "the interval includes 0"
                if not same:
                    why = f"cross-entropy moved by {moved:+.4f}"
                held = apart and same
                where: dict[str, Any] = {name: str(row[name]) for name in place[:6]}
                yield Contrast(
                    what=f"alpha = {row['alpha']:g}",
                    metric=str(row["protocol"]),
                    verdict=HOLDS if held else verdict,
                    why="" if held else why,
                    method=str(row["method"]),
                    images=str(row["images"]),
                    seeds=int(row["seeds"]),
                    units=int(row["units"]),
                    paired=True,
                    value=row["grid_pg"],
                    against=row["before"],
                    effect=row["gain"],
                    low=row["gain_low"],
                    high=row["gain_high"],
                    published=f"{SHIFT[0]:g} → {SHIFT[1]:g}" if row["method"] == "lrp" else "",
                    results=tuple(row["results"].split()),
                    decides=abs(row["alpha"]) == largest and row["loss"] == CE,
                    **where,
                )

    def note(self, contrasts: Sequence[Contrast], evidence: ProbeEvidence) -> str:
        """Whether the cross-entropy was looked at."""
        if contrasts and evidence.losses.empty:
            return "no run says its cross-entropy, which stays by construction"
        return ""


def shifts(evidence: ProbeEvidence) -> pd.DataFrame:
    """GridPG and cross-entropy by the size of the shift, 0 for the probe as it was trained.

    Returns:
        Columns dataset, backbone, pretraining, probe, loss, variant, method, images, protocol,
        alpha, grid_pg, ``gain`` over ``before`` (the probe as trained) with ``gain_low`` and
        ``gain_high``, units, seeds, ce_loss and ``ce_loss_before`` (NaN where no run says) and
        results.
    """
    rows, kept = [], evidence.evaluated.set_index("result_id")
    for probe in evidence.probes(control=True):
        for scored, protocol, _ in evidence.scored(probe, "grid_pg", SHIFTED):
            ids = evidence.evaluation_ids(probe, scored)
            raw = scored._replace(gauge=AS_TRAINED)
            before = evidence.columns(probe, raw, protocol)
            losses = loss_of(evidence, evidence.evaluation_ids(probe, raw))
            for alpha, part in kept.loc[list(ids)].groupby("alpha"):
                done = part[part["status"] == "FINISHED"]
                pairs = [
                    (evidence.rows.column(str(result_id), protocol), before.get(str(seed)))
                    for result_id, seed in zip(done.index, done["seed"], strict=True)
                ]
                row: dict[str, object] = {**named(probe, scored), "method": scored.method}
                row |= {"images": scored.images, "protocol": protocol, "alpha": float(str(alpha))}
                row |= {"results": " ".join(map(str, part.index))}
                row |= shifted_numbers(pairs)
                row["ce_loss"] = loss_of(evidence, tuple(map(str, done.index)))
                rows.append(row | {"ce_loss_before": losses})
    place = ["dataset", "backbone", "pretraining", "probe", "loss", "variant", "method", "images"]
    numbers = ["alpha", "grid_pg", "before", "gain", "gain_low", "gain_high", "units", "seeds"]
    columns = [*place, "protocol", *numbers, "ce_loss", "ce_loss_before", "results"]
    return pd.DataFrame(rows, columns=columns).sort_values(
        [*place, "alpha"], kind="stable", ignore_index=True
    )


def shifted_numbers(pairs: Sequence[tuple[Column | None, Column | None]]) -> dict[str, float]:
    """GridPG of shifted probes over the same before, seed by seed."""
    gains = [gain(own, rival) for own, rival in pairs if own is not None and rival is not None]
    alone = [level(own).effect for own, _ in pairs if own is not None]
    if not gains:
        mean = float(np.mean(alone)) if alone else NAN
        empty = dict.fromkeys(("before", "gain", "gain_low", "gain_high"), NAN)
        return {"grid_pg": mean, **empty, "units": 0, "seeds": len(alone)}
    found = over_seeds(gains)
    low, high = found.interval
    return {
        "grid_pg": found.value,
        "before": found.against,
        "gain": found.effect,
        "gain_low": low,
        "gain_high": high,
        "units": found.units,
        "seeds": len(gains),
    }


def loss_of(evidence: ProbeEvidence, result_ids: Sequence[str]) -> float:
    """The mean cross-entropy that evaluations logged; NaN if none did."""
    rows = evidence.losses
    return float(rows.loc[rows["result_id"].isin(result_ids), "value"].mean())
