"""The class names of the zoo's heads: what an index in a mask or in a network's output means."""

from __future__ import annotations

IGNORE = 255
"""The mask value of pixels that say nothing."""

SURFACE = ("deep_water", "wet", "land")
"""Classes of the head ``surface``: deep water, wet or shallow ground, land."""

ANOMALY = ("none", "iron_oxide", "bleached_quartz", "dark_disturbed")
"""Classes of the experimental head ``anomaly``."""

HEADS: dict[str, tuple[str, ...]] = {"surface": SURFACE, "anomaly": ANOMALY}
