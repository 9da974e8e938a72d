"""What follows from the runs: whether the instrument works, and whether the paper is borne out."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from analysis.guidance import CONTROL, LOSSES, SETTING, in_order

RATIO = 3.0
"""By how many spreads guidance must move EPG for the positive control to pass."""
AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "undecided"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper of the form: this loss reaches the highest value of this metric."""

    name: str
    loss: str
    metric: str
    layers: tuple[str, ...] = ()
    """Where the paper says so; empty: everywhere."""
    rivals: tuple[str, ...] = LOSSES
    """The losses that the paper compares; without runs of all of them nothing agrees."""


CLAIMS = (
    Claim(name="Energy leads EPG", loss="energy", metric="epg"),
    Claim(
        name="L1 leads IoU at the final layer",
        loss="l1",
        metric="box_iou_tuned",
        layers=("final",),
    ),
)
"""Findings R1 and R2 of Model Guidance (Rao et al., ICCV 2023), section 5.1."""


def positive_control(candidates: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """Whether guidance moves what it guides: a check of the instrument, not of the paper.

    Validation EPG at the largest lambda of the Energy loss minus that of CONTROL, both after the
    last epoch, against the spread over seeds. Only seeds that have both count.

    Args:
        candidates: as ``guidance.candidates`` returns them.
        references: as ``guidance.references`` returns them.

    Returns:
        One row per SETTING: lambda_loc, ``seeds`` (how many), ``control`` and ``guided`` (means
        over seeds), ``control_sd`` and ``guided_sd`` (n - 1), ``difference``, ``spread`` (the
        larger of the two, so that passing does not depend on which one is meant), ``ratio``, and
        ``verdict``: pass (ratio above RATIO), fail, or what is missing.
    """
    control = references[references["reference"] == CONTROL]
    columns = ["lambda_loc", "seeds", "control", "guided", "control_sd", "guided_sd"]
    rows = []
    for values, group in candidates.groupby(list(SETTING)):
        at = group[group["loss"] == "energy"]
        at = at[at["lambda_loc"] == at["lambda_loc"].max()].dropna(subset="val_epg")
        last = at.sort_values("epoch").groupby("seed").tail(1)
        both = last.merge(control, on=[*SETTING, "seed"], suffixes=("", "_control"))
        both = both.dropna(subset="val_epg_control")
        pair = both[["val_epg_control", "val_epg"]]
        rows.append((*values, at["lambda_loc"].max(), len(both), *pair.mean(), *pair.std()))
    found = pd.DataFrame(rows, columns=[*SETTING, *columns])
    found["difference"] = found["guided"] - found["control"]
    found["spread"] = found[["control_sd", "guided_sd"]].max(axis=1)
    found["ratio"] = found["difference"] / found["spread"]
    found["verdict"] = ["pass" if ratio > RATIO else "fail" for ratio in found["ratio"]]
    found.loc[found["seeds"] < 2, "verdict"] = "needs >= 2 seeds"
    return in_order(found)


def claim_seeds(choices: pd.DataFrame, guided: pd.DataFrame) -> pd.DataFrame:
    """Each claim at each setting and seed: the loss against its best rival, on test.

    Compared are the models that ``choice.choices`` picked on validation. A seed agrees if the loss
    is above every rival and no run of a rival is missing; it disagrees if a rival is above it and
    none of its own runs is missing. A run is missing if another seed has its lambda, or it failed.

    Args:
        choices: as ``choice.choices`` returns them.
        guided: as ``guidance.guided`` returns them, failed trainings included.

    Returns:
        One row per claim, SETTING and seed: ``value`` and ``rival_value`` (test), ``rival`` (its
        loss), ``difference``, ``verdict``, and ``why`` where it is undecided.
    """
    wanted = guided.groupby([*SETTING, "loss"])["lambda_loc"].agg(set).to_dict()
    finished = guided[guided["status"] == "FINISHED"]
    present = finished.groupby([*SETTING, "loss", "seed"])["lambda_loc"].agg(set).to_dict()
    rows = []
    for claim in CLAIMS:
        at_layer = guided[guided["layer"].isin(claim.layers)] if claim.layers else guided
        best = choices[choices["chosen_by"] == claim.metric]
        for key, _ in at_layer.groupby([*SETTING, "seed"]):
            setting, seed = key[:-1], key[-1]
            losses = (claim.loss, *(name for name in claim.rivals if name != claim.loss))
            missing = [
                name
                for name in losses
                if (*setting, name) not in wanted
                or present.get((*setting, name, seed)) != wanted[(*setting, name)]
            ]
            here = (best[[*SETTING, "seed"]] == list(key)).all(axis=1)
            at_key = best[here & best["loss"].isin(losses)].set_index("loss")
            rows.append((claim.name, *key, *_judge(claim, at_key, missing)))
    columns = ["claim", *SETTING, "seed", "value", "rival", "rival_value", "difference"]
    return in_order(pd.DataFrame(rows, columns=[*columns, "verdict", "why"]))


def _judge(
    claim: Claim, best: pd.DataFrame, missing: list[str]
) -> tuple[float, str, float, float, str, str]:
    """Value, rival, its value, difference, verdict and why, for one seed.

    Args:
        claim: what is judged.
        best: the chosen model of each loss, indexed by loss.
        missing: losses of which a run is missing.
    """
    column = f"test_{claim.metric}"
    tested = best[column] if column in best else pd.Series(float("nan"), index=best.index)
    untested = list(best.index[best["epoch"].notna() & tested.isna()])
    value = float(tested.get(claim.loss, float("nan")))
    rivals = tested.drop(claim.loss, errors="ignore").dropna()
    unknown = {*missing, *untested}
    absent = f"runs or test values missing: {', '.join(sorted(unknown))}"
    if rivals.empty:
        why = absent if unknown else "no rival within the loss of F1, or no baseline"
        return value, "", float("nan"), float("nan"), UNDECIDED, why
    rival, rival_value = str(rivals.idxmax()), float(rivals.max())
    found = (value, rival, rival_value, value - rival_value)
    if claim.loss not in unknown and not value >= rival_value:  # NaN: no model keeps enough F1
        return *found, DISAGREES, ""
    if value > rival_value and not unknown - {claim.loss}:
        return *found, AGREES, ""
    return *found, UNDECIDED, absent if unknown else "equal"


def claims(seeds: pd.DataFrame) -> pd.DataFrame:
    """Each claim at each setting, over seeds, from ``claim_seeds``.

    Returns:
        One row per claim and SETTING: ``seeds``, how many are ``agreeing`` and ``disagreeing``,
        ``difference`` (mean), ``sd`` (n - 1), ``verdict`` (decided only by two seeds or more that
        all say the same) and ``why`` seeds are undecided.
    """
    rows = []
    for key, group in seeds.groupby(["claim", *SETTING], sort=False):
        verdicts = list(group["verdict"])
        unanimous = len(verdicts) >= 2 and len(set(verdicts)) == 1
        difference = group["difference"]
        counts = (len(verdicts), verdicts.count(AGREES), verdicts.count(DISAGREES))
        verdict = verdicts[0] if unanimous else UNDECIDED
        why = "; ".join(sorted({reason for reason in group["why"] if reason}))
        rows.append((*key, *counts, difference.mean(), difference.std(), verdict, why))
    columns = ["seeds", "agreeing", "disagreeing", "difference", "sd", "verdict", "why"]
    return pd.DataFrame(rows, columns=["claim", *SETTING, *columns])


def verdict(claim_rows: pd.DataFrame) -> str:
    """What all settings of one claim say together: decided only if all say the same."""
    said = set(claim_rows["verdict"])
    return said.pop() if len(said) == 1 else UNDECIDED
