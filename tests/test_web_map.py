"""The map in a real browser: it loads from its own server alone, and a geologist finds the way."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from flights import write_flight

from groundsync.catalogue import SqliteCatalogue
from groundsync.fuse import fuse
from groundsync.ingest import ingest_flight
from groundsync.publish import publish
from groundsync.server import BUNDLE
from groundsync.settings import ProjectSettings

pytest.importorskip("playwright")
from playwright.sync_api import Page, Request, sync_playwright

pytestmark = pytest.mark.browser
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]


def need(path: Path, how: str) -> None:
    if path.exists():
        return
    if os.environ.get("CI"):
        pytest.fail(f"CI must have {path}: {how}")
    pytest.skip(f"no {path}: {how}")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two fused flights, 12 targets and a report."""
    folder = tmp_path_factory.mktemp("web")
    project, catalogue = folder / "project", SqliteCatalogue(folder / "project")
    for number in range(12):
        at = (5.0 + 15.0 * (number % 4), 5.0 + 20.0 * (number // 4))
        flight = write_flight(folder / f"card-{number}", f"flight-{number:02d}", at)
        ingest_flight(flight, project, catalogue)
    publish(fuse(project, catalogue.flights(), ProjectSettings()).view, project, catalogue)
    (project / "report.html").write_text("<!doctype html><title>Report</title><p>rank 1</p>")
    return project


@pytest.fixture(scope="module")
def address(project: Path) -> Iterator[str]:
    need(CHROMIUM, "install Chromium")
    need(BUNDLE / "index.html", "python hatch_build.py")
    command = [sys.executable, "-m", "gossan", "groundsync", "serve", "--port", "0"]
    server = subprocess.Popen([*command, "--data", str(project)], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        line = server.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found, line
        yield found.group()
    finally:
        server.terminate()
        server.communicate(timeout=20)


class Seen:
    """What went wrong or abroad while a page was open."""

    def __init__(self, page: Page) -> None:
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.on("request", self._request)
        page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _request(self, request: Request) -> None:
        self.requests.append(request.url)


@pytest.fixture(scope="module")
def opened(address: str) -> Iterator[tuple[Page, Seen]]:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1100, "height": 700})
        seen = Seen(page)
        page.goto(address)
        page.wait_for_selector("body[data-ready]", timeout=90_000)
        yield page, seen
        browser.close()


def picture(page: Page) -> np.ndarray:
    shot = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert shot is not None
    return shot[:, : shot.shape[1] - 360].astype(int)


def test_the_project_is_listed_and_drawn(opened: tuple[Page, Seen]) -> None:
    page, _ = opened
    assert page.locator("#summary").inner_text().startswith("12 flights, 12 frames")
    assert page.locator("#targets [data-target]").count() == 10, "the first ten"
    assert page.locator(".marker").count() == 12, "all of them on the map"
    page.get_by_role("button", name="Show all 12 targets").click()
    assert page.locator("#targets [data-target]").count() == 12
    page.get_by_role("button", name="Show fewer").click()
    assert page.locator("#alerts li").count() == 6
    assert page.locator("#report").get_attribute("href") == "report"
    assert "uncalibrated" in page.locator("#targets li").first.inner_text()
    page.wait_for_timeout(1500)
    ground = picture(page)
    assert len(np.unique(ground.reshape(-1, 3), axis=0)) > 50
    assert ground.std() > 5.0


def test_a_click_shows_the_evidence_with_its_ellipse(opened: tuple[Page, Seen]) -> None:
    page, _ = opened
    row = page.locator("#targets [data-target]").nth(1)
    row.click()
    evidence = page.locator("#evidence")
    text = evidence.inner_text()
    assert re.search(r"Ellipse \(90 %\)\s*± 2\.1 m by ± 2\.1 m, long axis \d+° from north", text)
    assert "90 % radius" in text
    assert "iron oxide with probability" in text
    assert row.get_attribute("aria-current") == "true"
    assert page.locator("li:has(#evidence) [data-target]").count() == 1, "under its own row"
    assert page.locator('.marker[aria-current="true"]').inner_text() == "2"


def test_a_marker_opens_its_target_even_below_the_first_ten(opened: tuple[Page, Seen]) -> None:
    page, _ = opened
    page.locator('.marker[aria-label^="Target 12:"]').dispatch_event("click")
    open_row = page.locator("li:has(#evidence) .rank")
    assert open_row.inner_text() == "12"
    assert page.locator("#evidence").is_visible()


def test_a_layer_goes_and_comes_back(opened: tuple[Page, Seen]) -> None:
    page, _ = opened
    page.wait_for_timeout(1500)
    before = picture(page)
    page.get_by_label("90 % ellipses of targets").uncheck()
    page.get_by_label("Imaged ground").uncheck()
    page.wait_for_timeout(1000)
    without = picture(page)
    page.get_by_label("90 % ellipses of targets").check()
    page.get_by_label("Imaged ground").check()
    page.wait_for_timeout(1000)
    again = picture(page)
    changed = np.abs(before - without).max(axis=2) > 6
    assert changed.mean() > 0.01
    assert (np.abs(before - again).max(axis=2) > 6).mean() < changed.mean() / 10


def test_nothing_came_from_elsewhere_and_nothing_failed(
    opened: tuple[Page, Seen], address: str
) -> None:
    _, seen = opened
    assert len(seen.requests) > 10
    assert [
        url for url in seen.requests if not url.startswith((address, "data:", f"blob:{address}"))
    ] == []
    assert seen.errors == []
