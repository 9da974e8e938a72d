"""Every study runs as it is on a cluster of several nodes, and takes what others have computed."""

from __future__ import annotations

import pytest

from tests.sweeps.stories import STUDIES

TABLES = {"waterbirds": "ACCURACY BY GROUP"}
"""Title of a study's first table; PARETO-DOMINANT MODELS of the others."""


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
class TestOnSeveralNodes:
    @pytest.mark.parametrize("study", STUDIES)
    def test_a_smoke_run_succeeds_and_prints_only_its_own_lines(self, spread, study):
        ended = spread[study]
        assert (ended.code, ended.err) == (0, "")
        assert "Ray is up with 2 CPU" in ended.out  # a head without work, two nodes of one each
        assert TABLES.get(study, "PARETO-DOMINANT") in ended.out
        for noise in ("ray::", "Tune", "INFO", "WARNING"):
            assert noise not in ended.out

    def test_what_one_study_has_computed_another_finds(self, spread):
        """Baseline, control, their evaluations and all boxes as they are: not a second time."""
        assert "5 results: 0 are there, 5 to compute" in spread["guidance_lambda"].out
        assert "7 results: 5 are there, 2 to compute" in spread["guidance_annotations"].out
