"""The report as one self-contained HTML file: no script, no link to anywhere."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from groundsync.export.files import replace_file
from groundsync.report.doubts import not_seen, uncalibrated
from groundsync.report.map_svg import legend, map_svg
from groundsync.view import ProjectView

TEMPLATE = "page.html.j2"
COMPARED = 10


def write_report(view: ProjectView, path: Path) -> Path:
    """Writes the report, whole or not at all, and returns its path.

    Raises:
        ExportError: The file cannot be written.
    """
    replace_file(path, report_html(view).encode())
    return path


def report_html(view: ProjectView) -> str:
    """Returns the report; the same project gives the same text."""
    environment = Environment(
        loader=PackageLoader("groundsync.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"small": small_number, "plain": lambda name: name.replace("_", " ")}
    page = environment.get_template(TEMPLATE)
    return page.render(
        view=view,
        summary=summary(view),
        svg=Markup(map_svg(view)),  # noqa: S704 (built of numbers and escaped names)
        legend=legend(view),
        scanned=sum(f.scanned for f in view.flights),
        kept=any(not c.scanned for c in view.coverage),
        not_seen=not_seen(view),
        uncalibrated=uncalibrated(view),
        compared=[one for one in view.targets[:COMPARED] if one.before_next],
        dates=[f.started_utc for f in view.flights if f.started_utc],
        crs=view.crs.name,
    )


def summary(view: ProjectView) -> str:
    """Returns the project in one or two sentences."""
    n, flights = len(view.targets), len(view.flights)
    said = f"{n} target{'s' * (n != 1)} from {flights} flight{'s' * (flights != 1)}"
    scanned = sum(f.scanned for f in view.flights)
    said += f", {scanned} frames scanned."
    planned = [f for f in view.flights if f.planned_km2 and f.covered_share is not None]
    if planned:
        area = sum(f.planned_km2 or 0.0 for f in planned)
        covered = sum((f.planned_km2 or 0.0) * (f.covered_share or 0.0) for f in planned)
        said += f" {covered / area:.0%} of {area:.2f} km² planned was imaged."
    return said


def small_number(value: float | None) -> str:
    """Returns a probability or a ratio in two significant digits."""
    return "–" if value is None or value != value else f"{value:.2g}"
