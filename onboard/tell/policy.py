"""Which tracks are told to the crew, and in which words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from onboard.config import AlertRule, AlertSettings
from onboard.records import Alert, Track

SEVERITY = {"warning": 4, "notice": 5, "info": 6}
"""MAVLink severities; 0-3 pop up as critical and are not for findings."""
MAX_TEXT = 50


class AlertPolicy:
    """Decides once per track; the same rules in flight, in replay and in simulation.

    Args:
        settings: The rules and words.
        next_id: The first alert's number.
        told_tracks: Tracks that were alerted before (a daemon that was restarted in flight).
    """

    def __init__(
        self, settings: AlertSettings, next_id: int = 1, told_tracks: Iterable[int] = ()
    ) -> None:
        self._settings = settings
        self._next_id = next_id
        self._decided = set(told_tracks)

    def decide(
        self, tracks: Iterable[Track], t_mono_ns: int, merged: Mapping[int, int] | None = None
    ) -> tuple[Alert, ...]:
        """Returns the alerts that these changed tracks raise.

        Args:
            tracks: Tracks that a frame changed.
            t_mono_ns: When, host monotonic time.
            merged: Which track went into which: what was told under one number is not told again
                under the other.
        """
        alerts = []
        self._decided.update(kept for gone, kept in (merged or {}).items() if gone in self._decided)
        for track in tracks:
            rule = self._rule_for(track)
            if rule is None or track.track_id in self._decided:
                continue
            self._decided.add(track.track_id)
            text = alert_text(track, self._settings.words)
            severity = SEVERITY[rule.severity]
            alerts.append(Alert(self._next_id, track.track_id, t_mono_ns, severity, text))
            self._next_id += 1
        return tuple(alerts)

    def _rule_for(self, track: Track) -> AlertRule | None:
        return next((rule for rule in self._settings.rule if _meets(rule, track)), None)


def alert_text(track: Track, words: dict[str, str] | None = None) -> str:
    """Returns what is said about a track: ``IRON OXIDE 12 3.2m2 37.53012,-117.19034 +-2m``.

    Class, the track's number (to find it again), area, position (five decimals: about a metre) and
    the radius that holds it with 90 %. Where 50 characters do not suffice the area goes first,
    then the end of the class's name.
    """
    name = (words or {}).get(track.class_name, track.class_name)
    name = name.replace("_", " ").upper().encode("ascii", "replace").decode()
    place = f"{track.lat_deg:.5f},{track.lon_deg:.5f} +-{_metres(track_ce90_m(track))}"
    area = f"{track.area_m2:.2g}" if track.area_m2 < 10 else f"{track.area_m2:.0f}"
    full = f"{name} {track.track_id} {area}m2 {place}"
    if len(full) <= MAX_TEXT:
        return full
    short = f" {track.track_id} {place}"
    return (name[: MAX_TEXT - len(short)].rstrip() + short)[:MAX_TEXT]


def track_ce90_m(track: Track) -> float:
    """Returns the radius of the circle that holds a track's place with 90 %."""
    from onboard.place.geotag import ce90_m  # geotag loads PROJ: only once something was found

    return float(ce90_m(track.cov_total_m2[None])[0])


def merged_text(alerts: list[Alert], tracks: Sequence[Track] = ()) -> str:
    """Returns one text for alerts that came closer than the allowed interval.

    One alert is said as it is; more as a count per class, the tracks' numbers, and (four decimals:
    about ten metres) the middle of their places: ``4 IRON OXIDE: no. 2,4,5,7 37.5300,-117.1903``.
    What does not fit is left out from the end.
    """
    if len(alerts) == 1:
        return alerts[0].text
    names: dict[str, int] = {}
    for alert in alerts:
        name = alert.text.rpartition(f" {alert.track_id} ")[0]
        names[name] = names.get(name, 0) + 1
    counts = " + ".join(f"{n} {name}" for name, n in names.items())
    numbers = f": no. {','.join(str(alert.track_id) for alert in alerts)}"
    offers = [f"{counts}{numbers}{_middle(tracks)}", f"{counts}{numbers}", counts]
    return next((t for t in offers if len(t) <= MAX_TEXT), f"{len(alerts)} NEW FINDS: see the map")


def _middle(tracks: Sequence[Track]) -> str:
    if not tracks:
        return ""
    lat = sum(track.lat_deg for track in tracks) / len(tracks)
    lon = sum(track.lon_deg for track in tracks) / len(tracks)
    return f" {lat:.4f},{lon:.4f}"


def _meets(rule: AlertRule, track: Track) -> bool:
    """Whether a confirmed track meets a rule."""
    if track.state != "confirmed" or (rule.classes and track.class_name not in rule.classes):
        return False
    if track.ood and not rule.out_of_distribution:
        return False
    seen_enough = track.looks >= rule.min_looks and track.probability >= rule.min_probability
    if not seen_enough or track.area_m2 < rule.min_area_m2:
        return False
    return math.isfinite(track.lat_deg) and track_ce90_m(track) <= rule.max_ce90_m


def _metres(value: float) -> str:
    return f"{value:.1f}m" if value < 10 else f"{value:.0f}m"
