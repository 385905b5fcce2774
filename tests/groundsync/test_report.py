"""The report: says why, what was not seen and what is uncalibrated; loads nothing."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest

from groundsync.errors import ExportError
from groundsync.report.doubts import not_seen, uncalibrated
from groundsync.report.map_svg import map_svg, shown_range
from groundsync.report.page import report_html, summary, write_report
from groundsync.view import BeliefView

VOID = {"meta", "link", "img", "br", "input", "hr"}


def _beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


made = _beside("project_view")


class Strict(HTMLParser):
    """Collects text and attributes, and fails on tags that do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "action")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [v or "" for k, v in attrs if k in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def read(html: str) -> Strict:
    parser = Strict()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


@pytest.mark.parametrize("empty", [pytest.param(False, id="full"), pytest.param(True, id="empty")])
def test_the_page_is_whole_and_loads_nothing(empty: bool) -> None:
    html = report_html(made.project(empty=empty))
    parser = read(html)
    assert all(link.startswith("data:") for link in parser.links)
    assert "<script" not in html
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_names_are_escaped() -> None:
    html = report_html(made.project(empty=True))
    assert "nothing &lt;yet&gt;" in html
    assert "<yet>" not in html


def test_it_says_why_rank_1_stands_before_rank_2() -> None:
    view = made.project()
    text = " ".join(read(report_html(view)).words)
    assert view.targets[0].before_next in text
    assert view.targets[1].before_next in text
    assert view.targets[0].before_next.startswith("rank 1 before rank 2: ")
    for one in view.targets:
        assert one.target.target_id in text
        assert all(reason in text for reason in one.reasons)


def test_it_says_what_was_not_seen() -> None:
    view = made.project()
    said = " ".join(not_seen(view))
    assert "1 gap of 1.20 ha together (7% of the plan)" in said
    assert "2 of 90 frames not placed" in said
    assert "8 of 88 placed frames not scanned" in said
    assert "3 times blurred" in said
    assert "7 tracks in no target: tentative" in said
    assert "no UTC: clock never set" in said
    assert all(line in " ".join(read(report_html(view)).words) for line in not_seen(view))
    assert not_seen(replace(view, planned=None))[0].startswith("No plan is known")
    assert not_seen(replace(view, gaps=()))[0] == "Everything that was planned was imaged."


def test_it_says_what_is_uncalibrated() -> None:
    view = made.project()
    loose = [one.rank for one in view.targets if not one.target.calibrated]
    said = " ".join(uncalibrated(view))
    assert len(loose) == 2
    assert f"target {loose[0]} and {loose[1]} were not calibrated" in said
    assert "looks unlike what the model was trained on" in said
    assert "bleached quartz and iron oxide at the surface is assumed" in said
    assert "layers repeat each other" in said
    assert "no prior geology" not in said


def test_a_bad_or_absent_prior_is_said() -> None:
    view = made.project()
    assert view.belief is not None
    poor = replace(view.belief, evaluation={"information_gain_bits": -0.1, "t_over_n": 2.4})
    said = " ".join(uncalibrated(replace(view, belief=poor)))
    assert "no better than a uniform rate" in said
    assert "2.40 × the occurrences" in said
    none = BeliefView(view.belief.grid, view.belief.prior, view.belief.posterior, assumed=True)
    assert "no prior geology" in " ".join(uncalibrated(replace(view, belief=none)))


def test_a_calm_project_has_no_doubts_of_its_targets() -> None:
    assert uncalibrated(made.project(empty=True)) == ()
    assert summary(made.project(empty=True)) == "0 targets from 0 flights, 0 frames scanned."


def test_the_map_draws_what_there_is() -> None:
    root = ElementTree.fromstring(map_svg(made.project()))
    space = "{http://www.w3.org/2000/svg}"
    paths = [p.get("class") for p in root.iter(f"{space}path")]
    assert paths.count("ellipse") == 3
    assert paths.count("gap") == 1
    assert paths.count("plan") == 1
    assert paths.count("seen") == 1
    assert paths.count("kept") == 1
    assert [t.text for t in root.iter(f"{space}text") if t.get("class") == "rank"] == list("321")
    width, height = (float(v) for v in str(root.get("viewBox")).split()[2:])
    for circle in root.iter(f"{space}circle"):
        assert 0 < float(str(circle.get("cx"))) < width
        assert 0 < float(str(circle.get("cy"))) < height
    assert len(list(root.iter(f"{space}image"))) == 1


def test_north_is_up_and_east_is_right() -> None:
    """Target at +400 m east, +250 m north lies right of and above the one at +100, +100."""
    view = made.project()
    root = ElementTree.fromstring(map_svg(view))
    space = "{http://www.w3.org/2000/svg}"
    drawn = {}
    for group in root.iter(f"{space}g"):
        circle, text = group.find(f"{space}circle"), group.find(f"{space}text")
        if circle is not None and text is not None:
            at = float(str(circle.get("cx"))), float(str(circle.get("cy")))
            drawn[int(str(text.text))] = at
    by_x = sorted(view.targets, key=lambda one: one.target.x_m)
    by_y = sorted(view.targets, key=lambda one: -one.target.y_m)
    assert [one.rank for one in by_x] == sorted(drawn, key=lambda rank: drawn[rank][0])
    assert [one.rank for one in by_y] == sorted(drawn, key=lambda rank: drawn[rank][1])


def test_a_map_of_nothing_is_nothing() -> None:
    assert map_svg(made.project(empty=True)) == ""


def test_an_even_belief_is_not_drawn_as_contrast() -> None:
    low, high = shown_range(np.array([[0.1, 0.1001, np.nan]]))
    assert high >= 2 * low


def test_twice_is_once(tmp_path: Path) -> None:
    first = write_report(made.project(), tmp_path / "a.html").read_bytes()
    assert write_report(made.project(), tmp_path / "b.html").read_bytes() == first
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError):
        write_report(made.project(), tmp_path / "file" / "r.html")
