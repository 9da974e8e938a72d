"""What networks of different designs score: cells side by side, on the images of both."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from analysis.designs import (
    CELL,
    DEFAULT,
    FINETUNED,
    LOGIT,
    OUTSIDE,
    PLAIN,
    TUNED,
    compared,
    scored,
    unread,
)
from analysis.findings.design_cells import Cell, gated, images, passing
from analysis.findings.design_finding import (
    LEAST_DEFINED,
    LEAST_IMAGES,
    DesignContrast,
    counted,
)
from analysis.findings.finding import NAN, UNDECIDED
from analysis.probing_rows import Column, RowScores, gain, over_seeds
from analysis.runs import Runs


@dataclass(frozen=True, kw_only=True)
class DesignEvidence:
    """All scores of a report and the rows behind them."""

    scores: pd.DataFrame
    """As ``designs.scored`` gives it, but a fine-tuned network that does not pass the gate has
    OUTSIDE for TUNED, and cells of several results are not there."""
    comparisons: pd.DataFrame
    """As ``designs.compared`` gives it."""
    rows: RowScores
    clashes: frozenset[Cell] = frozenset()
    """Cells of several results, which say nothing."""
    notes: tuple[str, ...] = ()
    """What was left out, a sentence each."""

    @classmethod
    def of(cls, runs: Runs) -> DesignEvidence:
        """Everything that these runs say of designs."""
        found = cls.of_frames(scored(runs), compared(runs), RowScores(runs))
        keys = unread(runs)
        if not keys:
            return found
        note = f"Scores by {', '.join(keys)} belong to none of the protocols and are left out."
        return replace(found, notes=(*found.notes, note))

    @classmethod
    def of_frames(
        cls, scores: pd.DataFrame, comparisons: pd.DataFrame, rows: RowScores
    ) -> DesignEvidence:
        """With the gate applied, and cells of several results taken out."""
        scores, notes = gated(scores, comparisons), []
        several = scores.duplicated(list(CELL), keep=False)
        clashes = frozenset(
            Cell(*map(str, key)) for key in scores.loc[several, list(Cell._fields)].to_numpy()
        )
        if clashes:
            first = min(clashes)
            more = f" and {len(clashes) - 1} others" if len(clashes) > 1 else ""
            notes.append(
                f"{first}{more}: several results with one seed, none of which is taken. One launch "
                "asks for one of each: report it alone."
            )
        return cls(
            scores=scores[~several].reset_index(drop=True),
            comparisons=comparisons,
            rows=rows,
            clashes=clashes,
            notes=tuple(notes),
        )

    @cached_property
    def networks(self) -> list[str]:
        """Networks of which anything is known, in the order of the runs."""
        return list(
            dict.fromkeys([*self.scores["network"], *(cell.network for cell in self.clashes)])
        )

    @cached_property
    def _cells(self) -> dict[Cell, pd.DataFrame]:
        groups = self.scores.groupby(list(Cell._fields), sort=False)
        return {Cell(*map(str, key)): part for key, part in groups}

    def methods(
        self,
        network: str,
        protocols: Collection[str] = (TUNED,),
        output: str = LOGIT,
        setting: str = DEFAULT,
    ) -> list[str]:
        """The methods that were judged on a network by any of some protocols."""
        found = [
            cell.method
            for cell in [*self._cells, *sorted(self.clashes)]
            if (cell.network, cell.output, cell.setting) == (network, output, setting)
            and cell.protocol in protocols
        ]
        return list(dict.fromkeys(found))

    def columns(self, cell: Cell) -> dict[str, Column]:
        """The scores of a cell, by seed."""
        found: dict[str, Column] = {}
        rows = self._cells.get(cell)
        for row in () if rows is None else rows.itertuples():
            scores = self.rows.column(str(row.result_id), str(row.key))
            if scores is not None:
                found[str(row.seed)] = scores
        return found

    def missing(self, cell: Cell) -> str:
        """Why a cell has no score; empty where it has."""
        if cell in self._cells:
            return ""
        if cell.network not in self.networks:
            return f"no run of {cell.network}"
        if cell in self.clashes:
            return f"several results of {cell}"
        if cell.protocol == TUNED and (why := self.gate(cell.network, cell.setting)):
            return why
        return f"no run of {cell}"

    def gate(self, network: str, setting: str = DEFAULT) -> str:
        """Why no seed of a network has an in-domain score; empty where one has."""
        if any(found[:2] == (network, setting) for found in passing(self.comparisons)):
            return ""
        rows = self.comparisons
        rows = rows[
            (rows["pair"] == FINETUNED)
            & (rows["network"] == network)
            & (rows["setting"] == setting)
        ]
        known = rows[rows["in_domain"] == 0]
        if known.empty:
            return f"{network}: nothing says whether it knows deletions"
        row = known.iloc[0]
        worst = f"{100 * row['corrupted_accuracy_before']:.1f}"
        clean = f"{100 * row['accuracy_before']:.1f}"
        return (
            f"{network} does not pass the gate: worst patch {worst} to "
            f"{100 * row['corrupted_accuracy_after']:.1f}, clean {clean} to "
            f"{100 * row['accuracy_after']:.1f}; its score is an SDS"
        )

    def contrast(
        self, own: Cell, rival: Cell, what: str, *, decides: bool = True
    ) -> DesignContrast:
        """Whether one cell is above another, on the images of both, over the seeds of both."""

        def open_(why: str) -> DesignContrast:
            return DesignContrast(
                what=what, protocol=own.protocol, verdict=UNDECIDED, why=why,
                network=own.network, method=own.method, decides=decides,
            )  # fmt: skip

        if why := self.missing(own) or self.missing(rival):
            return open_(why)
        one, other = self.columns(own), self.columns(rival)
        seeds = [seed for seed in one if seed in other]
        if not seeds:
            return open_(f"no seed that both have: {own}; {rival}")
        gains = [gain(one[seed], other[seed]) for seed in seeds]
        if not all(found.paired for found in gains):
            return open_(f"too few shared images: {own}; {rival}")
        return DesignContrast.of(
            over_seeds(gains),
            what,
            own.protocol,
            of_images=max(images(side[seed]) for side in (one, other) for seed in seeds),
            network=own.network,
            method=own.method,
            decides=decides,
        )

    def levels(
        self, network: str, protocol: str = TUNED, setting: str = DEFAULT, seed: str = ""
    ) -> pd.DataFrame:
        """What the methods of a network score when they explain logits, the best first.

        Args:
            network: on which.
            protocol: by which.
            setting: at which grid and baseline; the paper's, if none is given.
            seed: of the fine-tuning; all, if none is given.

        Returns:
            Columns method, value (mean over images, then seeds), defined (share of the images, the
            least over seeds) and ``ranked`` (whether enough are defined to be called the best).
        """
        found = []
        for method in self.methods(network, (protocol,), setting=setting):
            cell = Cell(network, method, protocol, setting=setting)
            columns = [c for s, c in self.columns(cell).items() if seed in ("", s)]
            if not columns:
                continue
            defined = [images(column, defined=True) for column in columns]
            shares = [n / images(column) for n, column in zip(defined, columns, strict=True)]
            enough = min(defined) >= LEAST_IMAGES and min(shares) >= LEAST_DEFINED
            rows = self._cells[cell]
            value = rows.loc[rows["seed"].eq(seed) | (seed == ""), "value"].mean()
            found.append((method, float(value), min(shares), enough))
        names = ["method", "value", "defined", "ranked"]
        table = pd.DataFrame(found, columns=names).astype({"ranked": bool})
        return table.sort_values("value", ascending=False, kind="stable", ignore_index=True)

    def best(
        self,
        network: str,
        protocol: str = TUNED,
        setting: str = DEFAULT,
        seed: str = "",
        without: Sequence[str] = (),
    ) -> tuple[str, float]:
        """The best method of a network that is defined often enough, and its score; or none."""
        table = self.levels(network, protocol, setting, seed)
        table = table[table["ranked"] & ~table["method"].isin(without)]
        if table.empty:
            return "", NAN
        return str(table["method"].iloc[0]), float(table["value"].iloc[0])

    def majority(self, better: str, worse: str) -> list[DesignContrast]:
        """Whether most methods that both networks have score higher on the first.

        The first comparison decides: a side wins with more than half of the methods. The others are
        the methods. One that was judged on both networks, but not in domain on both, is missing.
        """
        what, anyhow = f"{better} over {worse}", (PLAIN, OUTSIDE, TUNED)
        theirs = self.methods(worse, anyhow)
        common = [method for method in self.methods(better, anyhow) if method in theirs]
        why = next(filter(None, (self.missing_network(network) for network in (better, worse))), "")
        if why or not common:
            return [counted([], what, why or "no method on both networks")]
        each = [
            self.contrast(
                Cell(better, method), Cell(worse, method), f"{method}: {what}", decides=False
            )
            for method in common
        ]
        return [counted(each, what), *each]

    def missing_network(self, network: str) -> str:
        """Why a network cannot be compared; empty where it can."""
        return self.gate(network) if network in self.networks else f"no run of {network}"
