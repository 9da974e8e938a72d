"""The findings of Model Guidance (Rao et al., ICCV 2023), R1 to R13, as runs bear them out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from analysis.findings.annotations import EnergyBearsCoarseBoxes, FewAnnotationsDo
from analysis.findings.evidence import Evidence
from analysis.findings.finding import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Comparison,
    Finding,
    Key,
    Verdict,
    every,
)
from analysis.findings.losses import (
    EnergyLeadsEpg,
    EnergyStaysOnObjects,
    L1LeadsIou,
    PpceChangesLeast,
)
from analysis.findings.maps import GradCamIsTheSame, LayersFollowTheTrend
from analysis.findings.networks import AccuracyGains, BcosLeadsAtInput, FinalAlwaysGains
from analysis.findings.paper_grid import needs
from analysis.findings.waterbirds import GuidanceUnlearnsPlaces, waterbirds_rows

BY_ACCURACY: tuple[Finding, ...] = (
    EnergyLeadsEpg(),
    L1LeadsIou(),
    EnergyStaysOnObjects(),
    BcosLeadsAtInput(),
    FinalAlwaysGains(),
    AccuracyGains(),
)
"""R1 to R6: what the supplement repeats with mAP."""


@dataclass(frozen=True)
class MapSaysTheSame(Finding):
    """R10."""

    id: ClassVar[str] = "R10"
    claim: ClassVar[str] = "mAP says the same as F1"
    says: ClassVar[str] = "R1 to R6 come to the same verdicts with mAP in the place of F1."
    source: ClassVar[str] = "section B.1, figure B3"

    def expected(self) -> list[Key]:
        return [Key("", "", "", finding.id) for finding in BY_ACCURACY]

    def compare(self, evidence: Evidence) -> Iterator[Comparison]:
        yield from self.verdict(evidence).comparisons

    def verdict(self, evidence: Evidence) -> Verdict:
        """The same question on these runs, of findings with any, and on the paper's grid."""
        return self.together(by_both(evidence))

    def together(self, pairs: Mapping[str, tuple[Verdict, Verdict]]) -> Verdict:
        """The same from verdicts that are known; what is open on the paper's grid is missing.

        Args:
            pairs: of R1 to R6, as ``by_both`` returns them.
        """
        rows = tuple(
            _agreement(name, by_f1.on_runs, by_map.on_runs)
            for name, (by_f1, by_map) in pairs.items()
            if by_f1.deciding or by_map.deciding
        )
        grid = [
            _agreement(name, by_f1.on_grid, by_map.on_grid)
            for name, (by_f1, by_map) in pairs.items()
        ]
        return Verdict(
            on_runs=every([row.verdict for row in rows]),
            on_grid=every([row.verdict for row in grid]),
            comparisons=rows,
            missing=tuple(row.key for row in grid if row.verdict == UNDECIDED),
            expected=len(grid),
        )


def by_both(evidence: Evidence) -> dict[str, tuple[Verdict, Verdict]]:
    """R1 to R6 with their verdicts by F1 and by mAP."""
    return {
        finding.id: (finding.verdict(evidence), finding.verdict(evidence.by_map))
        for finding in BY_ACCURACY
    }


def _agreement(what: str, by_f1: str, by_map: str) -> Comparison:
    """Whether two verdicts on one finding are the same; two open ones say nothing."""
    verdict = HOLDS if by_f1 == by_map else FAILS
    said = f"F1: {by_f1}, mAP: {by_map}"
    open_ = UNDECIDED in (by_f1, by_map)
    key = Key("", "", "", what)
    return Comparison(key=key, metric="map", verdict=UNDECIDED if open_ else verdict, why=said)


FINDINGS: tuple[Finding, ...] = (
    *BY_ACCURACY,
    FewAnnotationsDo(),
    EnergyBearsCoarseBoxes(),
    GuidanceUnlearnsPlaces(),
    MapSaysTheSame(),
    GradCamIsTheSame(),
    LayersFollowTheTrend(),
    PpceChangesLeast(),
)
"""R1 to R13."""


def verdicts(
    evidence: Evidence, findings: Sequence[Finding] = FINDINGS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The findings, and all comparisons that they rest on.

    Returns:
        Findings: id, claim, says, source, ``on_runs`` and ``on_grid`` (holds, weak, fails or
        undecided, on these runs and on the grid that the paper ran), ``holding``, ``failing`` and
        ``undecided`` (deciding comparisons on these runs), ``expected`` (comparisons of the
        grid), ``effect_low`` and ``effect_high`` (the range of mean effects), ``sd`` (the
        largest over seeds; NaN for one seed), ``seeds`` (the fewest), ``note``, ``needs`` (what
        the grid lacks), and ``results`` (ids of the runs that decide).
        Comparisons: finding, ``accuracy`` (F1 or mAP), dataset, kind, network, attribution, layer,
        variant, ``what``, metric, ``decides``, seeds, value, against, effect, sd,
        ``accuracy_effect``, covers, covered, verdict, why, published, results. Scores and
        effects are fractions.
    """
    rows, comparisons = [], []
    pairs = by_both(evidence) if set(findings) & {*BY_ACCURACY, MapSaysTheSame()} else {}
    for finding in findings:
        if isinstance(finding, MapSaysTheSame):
            found = finding.together(pairs)
        else:
            found = pairs[finding.id][0] if finding.id in pairs else finding.verdict(evidence)
        rows.append(_row(finding, found))
        comparisons += [_comparison(finding.id, "F1", c) for c in found.comparisons]
        if finding in BY_ACCURACY:
            by_map = pairs[finding.id][1]
            comparisons += [_comparison(finding.id, "mAP", c) for c in by_map.comparisons]
    names = list(_comparison("", "", Comparison(key=Key("", "", "", ""), metric="", verdict="")))
    return pd.DataFrame(rows), pd.DataFrame(comparisons, columns=names)


def waterbirds_verdicts(
    outcomes: pd.DataFrame, trained: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """R9 alone: arguments as for ``waterbirds_rows``, frames as ``verdicts``."""
    rows = waterbirds_rows(outcomes, trained)
    return verdicts(Evidence.of_waterbirds(rows), [GuidanceUnlearnsPlaces()])


def _row(finding: Finding, found: Verdict) -> dict[str, object]:
    deciding = found.deciding
    verdicts = [comparison.verdict for comparison in deciding]
    effects = pd.Series([comparison.effect for comparison in deciding], dtype=float)
    deviations = pd.Series([comparison.sd for comparison in deciding], dtype=float)
    results = dict.fromkeys(result for comparison in deciding for result in comparison.results)
    return {
        "id": finding.id,
        "claim": finding.claim,
        "on_runs": found.on_runs,
        "holding": verdicts.count(HOLDS),
        "failing": verdicts.count(FAILS),
        "undecided": verdicts.count(UNDECIDED),
        "effect_low": effects.min(),
        "effect_high": effects.max(),
        "sd": deviations.max(),
        "seeds": min((comparison.seeds for comparison in deciding), default=0),
        "on_grid": found.on_grid,
        "expected": found.expected,
        "decided_by": _decided_by(found),
        "needs": "; ".join(needs(found.missing, finding.expected())),
        "note": found.note,
        "says": finding.says,
        "source": finding.source,
        "results": " ".join(results),
    }


def _decided_by(found: Verdict) -> str:
    """The comparisons that fail or are open, whichever the verdict on these runs rests on."""
    telling = FAILS if any(c.verdict == FAILS for c in found.deciding) else UNDECIDED
    said = []
    for comparison in found.deciding:
        if comparison.verdict == telling:
            where = " ".join(filter(None, (comparison.network, comparison.key.layer)))
            why = f" ({comparison.why})" if comparison.why else ""
            said.append(": ".join(filter(None, (where, f"{comparison.key.what}{why}"))))
    return "; ".join(said)


def _comparison(finding: str, accuracy: str, found: Comparison) -> dict[str, object]:
    dataset, kind, layer, what = found.key
    return {
        "finding": finding,
        "accuracy": accuracy,
        "dataset": dataset,
        "kind": kind,
        "network": found.network,
        "attribution": found.attribution,
        "layer": layer,
        "variant": found.variant,
        "what": what,
        "metric": found.metric,
        "decides": found.decides,
        "seeds": found.seeds,
        "value": found.value,
        "against": found.against,
        "effect": found.effect,
        "sd": found.sd,
        "accuracy_effect": found.accuracy,
        "covers": found.covers,
        "covered": found.covered,
        "verdict": found.verdict,
        "why": found.why,
        "published": found.published,
        "results": " ".join(found.results),
    }
