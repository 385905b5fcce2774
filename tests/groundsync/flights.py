"""Small flight folders with known content, written by the drone's own store."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from calibration.geodesy import MapFrame
from onboard.keep.flight import FlightHeader, create_flight
from onboard.keep.store import FlightStore
from onboard.records import (
    Alert,
    Detections,
    Footprint,
    Frame,
    FrameRecord,
    GroundPoints,
    Poses,
    Track,
)

FRAME = MapFrame.utm(37.53, -117.19)
X0, Y0 = (float(v[()]) for v in FRAME.to_map(37.53, -117.19))
MODEL = "d" * 64


def square(dx: float, dy: float, side: float) -> np.ndarray:
    ring = np.array([[0.0, 0.0], [side, 0.0], [side, side], [0.0, side]])
    return ring + np.array([X0 + dx, Y0 + dy])


def pose(name: str) -> Poses:
    nothing = np.full((1, 3), np.nan)
    return Poses(
        frame=(name,),
        lat_deg=np.array([37.53]),
        lon_deg=np.array([-117.19]),
        alt_m=np.array([1580.0]),
        height_datum="ellipsoid",
        r_ned_cam=np.eye(3)[None],
        r_ned_body=np.full((1, 3, 3), np.nan),
        v_ned_mps=nothing,
        omega_ned_rps=nothing,
        sigma_enu_m=np.ones((1, 3)),
        sigma_tilt_rad=np.array([0.01]),
        sigma_heading_rad=np.array([0.02]),
        bias_enu_m=np.zeros((1, 3)),
        bias_heading_rad=np.zeros(1),
        t_boot_s=np.array([1.0]),
        flags=((),),
    )


def track(number: int, dx: float, dy: float) -> Track:
    lat, lon = (float(v[()]) for v in FRAME.to_geographic(X0 + dx, Y0 + dy))
    return Track(
        track_id=number,
        class_name="iron_oxide",
        state="confirmed",
        looks=3,
        misses=0,
        probability=0.9,
        lat_deg=lat,
        lon_deg=lon,
        alt_m=1500.0,
        height_datum="ellipsoid",
        x_m=X0 + dx,
        y_m=Y0 + dy,
        cov_random_m2=np.eye(2),
        sensitivity_m=np.zeros((2, 0)),
        bias_names=(),
        area_m2=4.0,
        first_frame="f1.jpg",
        last_frame="f1.jpg",
        best_frame="f1.jpg",
    )


def detections(name: str, dx: float, dy: float) -> Detections:
    lat, lon = FRAME.to_geographic(np.array([X0 + dx]), np.array([Y0 + dy]))
    ground = GroundPoints(
        lat_deg=lat,
        lon_deg=lon,
        alt_m=np.array([1500.0]),
        height_datum="ellipsoid",
        x_m=np.array([X0 + dx]),
        y_m=np.array([Y0 + dy]),
        cov_random_m2=np.eye(2)[None],
        sensitivity_m=np.zeros((1, 2, 0)),
        bias_names=(),
        cause_names=("position",),
        cause_share=np.ones((1, 1)),
        flags=((),),
    )
    ring = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    return Detections(
        frame=name,
        class_name=("iron_oxide",),
        probability=np.array([0.9]),
        calibrated=False,
        ood=np.array([False]),
        area_m2=np.array([4.0]),
        polygon_px=(ring,),
        centroid_px=np.array([[5.0, 5.0]]),
        ground=ground,
        polygon_map_m=(ring + np.array([X0, Y0]),),
        model_hash=MODEL,
        inside=np.array([True]),
    )


def write_flight(
    root: Path,
    flight_id: str = "flight-1",
    at: tuple[float, float] = (20.0, 20.0),
    *,
    close: bool = True,
    side: float = 60.0,
) -> Path:
    """Writes a flight of one frame over a square, one track at ``at``; returns its folder."""
    lat, lon = FRAME.to_geographic(*square(0, 0, 100.0).T)
    plan = tuple((float(a), float(b)) for a, b in zip(lat, lon, strict=True))
    header = FlightHeader(
        flight_id,
        crs_wkt=FRAME.crs.to_wkt(),
        rig_hash="r" * 64,
        model_hash=MODEL,
        model_name="nobodys-model",
        planned_area_deg=plan,
    )
    root.mkdir(parents=True, exist_ok=True)
    folder = create_flight(root, header)
    store = FlightStore(folder)
    record = FrameRecord(
        Frame("f1.jpg", 1),
        pose=pose("f1.jpg"),
        footprint=Footprint("f1.jpg", square(0, 0, side), (), 0.08, scanned=True),
        detections=detections("f1.jpg", *at),
        tracks=(track(1, *at),),
        alerts=(Alert(1, 1, 5, 4, "IRON OXIDE 1"),),
    )
    store.commit_frame(record)
    store.mark_told(1, 6)
    store.close(final=close)
    return folder
