"""What a person looks at, in a real browser: the report, opened as a file."""

import json
import shutil

import pytest
from playwright.sync_api import expect, sync_playwright

from bonelib import report
from tests.synthetic_results import MODELS, SETTINGS, small_results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_report_stands_alone_and_fits_its_page(tmp_path):
    results = small_results(tmp_path)[1]
    results.manifest.write_text(json.dumps({"profile": "smoke", "notebooks": {}}))
    path = report.write_report(results, SETTINGS, MODELS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
        expect(page.locator("h1")).to_contain_text("Segmentation of bone structures")
        overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert overflow <= 0
        browser.close()
