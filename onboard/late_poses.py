"""Frames that had no telemetry in time, placed after landing from the flight's own log."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from calibration.rig import Rig
from onboard.clocks import BootClock
from onboard.keep.flight import TELEMETRY
from onboard.keep.read import FlightReader
from onboard.live_flight import ScanItem
from onboard.records import ClockTie
from onboard.sources.telemetry_log import read_telemetry

log = logging.getLogger(__name__)


def place_late(folder: Path, rig: Rig, ties: list[ClockTie]) -> list[ScanItem]:
    """Returns the kept frames without pose that the log can place, with their poses.

    Such frames come from a stalled link or a daemon that was restarted in flight.

    Args:
        folder: The flight folder; its log may still be written.
        rig: Mount and clock offset.
        ties: Ties of host and autopilot that are not stored yet.

    Raises:
        GossanError: The log cannot be read.
    """
    with FlightReader(folder) as reader:
        records = [
            record
            for record in reader.frames()
            if record.pose is None and record.kept_path and record.frame.t_mono_ns is not None
        ]
        known = reader.ties()
    if not records or not (folder / TELEMETRY).is_file():
        return []
    telemetry = read_telemetry(folder / TELEMETRY)
    clock = BootClock.from_ties([*known, *ties])
    if telemetry.buffer.epochs != clock.epoch + 1:
        log.warning("late_placing_skipped epochs=%d", telemetry.buffer.epochs)
        return []
    items = []
    for record in records:
        t_mono_ns = record.frame.t_mono_ns
        assert t_mono_ns is not None  # noqa: S101
        t_boot_s, _ = clock.boot_from_mono(t_mono_ns)
        name = record.frame.name
        pose = telemetry.buffer.pose_at([t_boot_s], [name], rig, clock.epoch_at(t_mono_ns))
        if len(pose):
            flags = tuple(flag for flag in record.frame.flags if flag != "no_telemetry")
            path = folder / record.kept_path
            frame = replace(record.frame, t_boot_s=t_boot_s, path=path, flags=flags)
            items.append(ScanItem(frame, pose))
    return items
