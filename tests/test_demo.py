"""The demo as it is shipped reaches what the README says of it."""

from pathlib import Path

import pytest

import unweave


@pytest.mark.slow
def test_the_demo_reaches_its_figures(tmp_path: Path) -> None:
    results = unweave.train("demo", out=tmp_path / "demo", quiet=True).results
    assert results["explained_variance"] >= 0.80
    assert results["l0"] <= 40
    assert results["dead_share"] <= 0.10
    assert results["loss_recovered_mean"] >= 0.85
