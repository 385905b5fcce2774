"""The ground station in use: STATUSTEXT, NAMED_VALUE_FLOAT and dots for kept frames."""

from __future__ import annotations

import math
from collections.abc import Callable

from calibration.rotations import quat_from_r
from onboard.mavlink_send import MavlinkSender
from onboard.records import Alert, Floats, Frame, Poses, Track

Post = Callable[[Callable[[MavlinkSender], None]], bool]


class StatustextVoice:
    """Says alerts as STATUSTEXT: severity 4 is spoken in flight.

    Args:
        post: The link's queue of things to send.
        link_up: Whether the vehicle is heard at all.
        interval_s: At most one text in so many seconds.
    """

    def __init__(self, post: Post, link_up: Callable[[], bool], interval_s: float) -> None:
        self.interval_s = interval_s
        self._post = post
        self._link_up = link_up

    def say(
        self,
        severity: int,
        text: str,
        alerts: list[Alert],  # noqa: ARG002
        tracks: list[Track],  # noqa: ARG002
    ) -> bool:
        """Sends the text; refused while the link is down, so that it is said later."""
        return self._link_up() and self._post(lambda sender: sender.statustext(severity, text))


def post_values(post: Post, t_boot_ms: int, values: dict[str, float]) -> None:
    """Sends gauges by names of at most ten characters; unknown values are left out."""
    for name, value in values.items():
        if math.isfinite(value):
            post(lambda sender, n=name, v=value: sender.named_value(t_boot_ms, n, v))  # type: ignore[misc]


def post_image_dot(post: Post, frame: Frame, pose: Poses) -> None:
    """Sends CAMERA_IMAGE_CAPTURED for a kept frame: live coverage on the ground station's map."""
    t_boot_s = frame.t_boot_s if math.isfinite(frame.t_boot_s) else 0.0
    q = tuple(float(v) for v in _quaternion(pose.r_ned_cam[0]))
    lat, lon, alt = float(pose.lat_deg[0]), float(pose.lon_deg[0]), float(pose.alt_m[0])
    seq = frame.seq
    post(lambda sender: sender.image_captured(t_boot_s, seq, lat, lon, alt, q))  # type: ignore[arg-type]


def _quaternion(r_ned_cam: Floats) -> Floats:
    return quat_from_r(r_ned_cam)
