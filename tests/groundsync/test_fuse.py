"""Fusion of a project: targets of all flights, belief changed only where somebody looked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from flights import X0, Y0, write_flight

from groundsync.catalogue import SqliteCatalogue
from groundsync.errors import EmptyProjectError
from groundsync.fuse import Fusion, fuse
from groundsync.ingest import ingest_flight
from groundsync.ledger import look_llr
from groundsync.posterior import ASSUMED
from groundsync.publish import publish
from groundsync.settings import ProjectSettings


def fused(tmp_path: Path, *flights: tuple[str, tuple[float, float]]) -> tuple[Fusion, Path]:
    project = tmp_path / "project"
    catalogue = SqliteCatalogue(project)
    for name, at in flights:
        ingest_flight(write_flight(tmp_path / "cards", name, at), project, catalogue)
    return fuse(project, catalogue.flights(), ProjectSettings()), project


def test_the_same_thing_in_two_flights_is_one_target(tmp_path: Path) -> None:
    fusion, _ = fused(tmp_path, ("f1", (20.0, 20.0)), ("f2", (21.0, 20.5)), ("f3", (50.0, 10.0)))
    targets = [one.target for one in fusion.view.targets]
    assert sorted(len(t.evidence) for t in targets) == [1, 2]
    both = max(targets, key=lambda t: len(t.evidence))
    assert (both.x_m - X0, both.y_m - Y0) == pytest.approx((20.5, 20.25), abs=1e-6)
    assert both.ce90_m < targets[0].ce90_m or both is targets[0]


def test_belief_changes_where_somebody_looked_and_nowhere_else(tmp_path: Path) -> None:
    fusion, _ = fused(tmp_path, ("f1", (20.0, 20.0)))
    belief = fusion.belief
    unseen = belief.coverage == 0
    assert unseen.any()
    np.testing.assert_array_equal(belief.posterior[unseen], belief.prior[unseen])
    # An empty look by hand: L = ln(1 - f p_d), then through P(Z|Y) and P(Z|not Y).
    empty = int(belief.grid.cells(np.array([X0 + 52.0]), np.array([Y0 + 52.0]))[0])
    assert belief.coverage.ravel()[empty] == 1.0
    ratio = float(np.exp(look_llr(np.ones(1), np.array([False]), 0.5, 5e-6 * 25)[0]))
    z1, z0 = ASSUMED.p_given_deposit, ASSUMED.p_given_barren
    factor = (1 + z1 * (ratio - 1)) / (1 + z0 * (ratio - 1))
    prior = 1 - np.exp(-0.05 * 25e-6)
    odds = prior / (1 - prior) * factor
    assert belief.posterior.ravel()[empty] == pytest.approx(odds / (1 + odds), rel=1e-9)
    found = int(belief.grid.cells(np.array([X0 + 20.0]), np.array([Y0 + 20.0]))[0])
    assert belief.posterior.ravel()[found] > belief.prior.ravel()[found]


def test_gaps_and_coverage_are_those_of_the_plan(tmp_path: Path) -> None:
    fusion, _ = fused(tmp_path, ("f1", (20.0, 20.0)))
    view = fusion.view
    assert sum(gap.geometry.area for gap in view.gaps) == pytest.approx(100**2 - 60**2, rel=1e-3)
    assert view.flights[0].covered_share == pytest.approx(0.36, rel=1e-3)
    assert any("not at hand" in note for note in view.notes)


def test_fusing_twice_publishes_the_same_bytes(tmp_path: Path) -> None:
    fusion, project = fused(tmp_path, ("f2", (20.0, 20.0)), ("f1", (50.0, 10.0)))
    catalogue = SqliteCatalogue(project)
    publish(fusion.view, project, catalogue)
    first = {p.name: p.read_bytes() for p in (project / "layers").iterdir()}
    revision = catalogue.revision()
    again = fuse(project, list(reversed(catalogue.flights())), ProjectSettings())
    publish(again.view, project, catalogue)
    assert {p.name: p.read_bytes() for p in (project / "layers").iterdir()} == first
    assert catalogue.revision() == revision
    targets = json.loads(first["targets.geojson"])["features"]
    assert [f["properties"]["rank"] for f in targets] == [1, 2]
    assert set(first) == {
        f"{name}.geojson"
        for name in ("targets", "ellipses", "detections", "coverage", "gaps", "plan")
    }


def test_an_empty_project_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(EmptyProjectError) as caught:
        fuse(tmp_path, [], ProjectSettings())
    assert "ingest" in caught.value.hint
