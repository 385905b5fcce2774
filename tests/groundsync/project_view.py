"""A small project with known content, for the tests of exports and report."""

from __future__ import annotations

import numpy as np
from pyproj import CRS
from shapely import Polygon, box

from calibration.geodesy import MapFrame
from groundsync.grid import ProjectGrid
from groundsync.posterior import Expression
from groundsync.rank import Place, rank_targets
from groundsync.targets import FlightTracks, fuse_targets
from groundsync.view import (
    BeliefView,
    CoverageView,
    DetectionView,
    FlightView,
    GapView,
    ProjectView,
)
from onboard.records import Track

UTM = CRS.from_epsg(32611)
FRAME = MapFrame(UTM)
X0, Y0 = 482000.0, 4150000.0


def track(number: int, dx: float, dy: float, **changes: object) -> Track:
    lat, lon = FRAME.to_geographic(X0 + dx, Y0 + dy)
    fields: dict[str, object] = {
        "track_id": number,
        "class_name": "iron_oxide",
        "state": "confirmed",
        "looks": 4 + number,
        "misses": 1,
        "probability": 0.9,
        "lat_deg": float(lat),
        "lon_deg": float(lon),
        "alt_m": 1500.0,
        "height_datum": "ellipsoid",
        "x_m": X0 + dx,
        "y_m": Y0 + dy,
        "cov_random_m2": np.array([[1.0, 0.3], [0.3, 0.5]]),
        "sensitivity_m": np.array([[0.5], [0.2]]),
        "bias_names": ("rig/ab/tilt",),
        "area_m2": 30.0 * number,
        "first_frame": "a.jpg",
        "last_frame": "b.jpg",
        "best_frame": "b.jpg",
        "remedy": "one reverse pass: 2.4 to 1.1 m",
    }
    return Track(**(fields | changes))  # type: ignore[arg-type]


def project(*, empty: bool = False) -> ProjectView:
    """Three targets, two flights, a gap, a prior; or nothing at all."""
    if empty:
        return ProjectView("nothing <yet>", UTM)
    flights = [
        FlightTracks("20260401-a", "m1", True, (track(1, 100, 100), track(2, 400, 250, ood=True))),
        FlightTracks(
            "20260402-b",
            "m1",
            False,
            (track(1, 101, 100), track(3, 250, 50, class_name="bleached_quartz")),
        ),
    ]
    targets = fuse_targets(flights, FRAME).targets
    places = [
        Place(0.001 * (1 + (t.x_m - X0) / 100.0), 0.0005, False, 0.002, 0.01, 0.9) for t in targets
    ]
    ranked = rank_targets(targets, places, [Expression(0.6, 0.05, "")] * len(targets))
    lat, lon = FRAME.to_geographic(X0 + 100, Y0 + 100)
    detection = DetectionView(
        "20260401-a", "a.jpg", 0, "iron_oxide", 0.8, True, False, float(lat), float(lon),
        3.0, 28.0, "m1",
    )  # fmt: skip
    holed = Polygon(
        box(X0, Y0, X0 + 500, Y0 + 300).exterior, [box(X0 + 10, Y0 + 10, X0 + 30, Y0 + 30).exterior]
    )
    grid = ProjectGrid(UTM, X0 - 100, Y0 + 400, 50.0, 14, 12)
    prior = np.full(grid.shape, 0.002)
    posterior = prior.copy()
    posterior[2:8, 2:12] = 0.0015
    return ProjectView(
        name="Ridge & Spur",
        crs=UTM,
        targets=ranked,
        flights=(
            FlightView("20260401-a", "2026-04-01T09:00:00Z", model_name="surface-rgb 1",
                       model_hash="m1", frames=90, placed=88, scanned=80, detections=20, tracks=2,
                       alerts=2, covered_km2=0.14, planned_km2=0.16, covered_share=0.875,
                       dropped=(("blurred", 3), ("not scanned", 5))),
            FlightView("20260402-b", frames=50, placed=50, scanned=50, tracks=2,
                       notes=("no UTC: clock never set",)),
        ),
        detections=(detection,),
        coverage=(
            CoverageView("20260401-a", holed, 0.03),
            CoverageView("20260402-b", box(X0, Y0, X0 + 300, Y0 + 300), 0.03, scanned=False),
        ),
        gaps=(GapView("20260401-a", box(X0 + 500, Y0, X0 + 540, Y0 + 300)),),
        planned=box(X0, Y0, X0 + 540, Y0 + 300),
        belief=BeliefView(grid, prior, posterior, False, "district", {
            "t_over_n": 1.04, "auc_block": 0.747, "auc_random": 0.786, "ci_rejected": True,
            "information_gain_bits": 0.52, "notes": ["layers repeat each other"],
            "layers": [{"name": "units", "date": "2001-01-01", "licence": "CC BY 4.0"}],
            "validation": {"block_km": 20.0},
        }),
        left_out=(("tentative", 7),),
        software="gossan 0.1.0",
    )  # fmt: skip
