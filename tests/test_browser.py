"""What a person looks at, in a real browser: a notebook in JupyterLab and the report."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import psutil
import pytest
from playwright.sync_api import expect, sync_playwright

from bonelib import report
from bonelib.paths import NOTEBOOKS
from tests.synthetic_results import MODELS, SETTINGS, small_results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab with a copy of notebook 01; yields its address."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copy(NOTEBOOKS / "01_prepare_data.ipynb", root)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1",
        f"--port={port}", f"--ServerApp.root_dir={root}", "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/api").close()
                break
            except OSError:
                time.sleep(0.5)
        yield address
        for child in psutil.Process(server.pid).children(recursive=True):
            child.kill()
        server.kill()


def test_the_slice_browser_turns_pages_in_jupyterlab(lab, browser):
    page = browser.new_page(viewport={"width": 1500, "height": 1000})
    page.goto(f"{lab}/lab/tree/01_prepare_data.ipynb?reset")
    page.wait_for_function("window.jupyterapp !== undefined", timeout=60_000)
    expect(page.locator(".jp-Notebook")).to_be_visible(timeout=60_000)
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    # The notebook is drawn piece by piece: bring the widget into view.
    picture = page.locator("img.widget-image")
    for _ in range(120):
        page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop += 4000")
        if picture.count():
            break
        page.wait_for_timeout(1000)
    expect(picture).to_be_visible(timeout=60_000)
    picture.scroll_into_view_if_needed()

    def shown():
        return picture.get_attribute("src")

    first = shown()
    caption = page.locator(".widget-html", has_text="slice").first
    expect(caption).to_contain_text("slice 6 of 10")
    slider = page.locator(".widget-slider", has_text="slice").locator("[role=slider], .noUi-handle")
    slider.first.focus()
    page.keyboard.press("ArrowRight")
    expect(caption).to_contain_text("slice 7 of 10")
    page.wait_for_function(
        "old => document.querySelector('img.widget-image').src !== old", arg=first
    )
    second = shown()
    page.locator(".widget-dropdown", has_text="window").locator("select").select_option(
        "soft tissue"
    )
    page.wait_for_function(
        "old => document.querySelector('img.widget-image').src !== old", arg=second
    )
    page.close()


def test_the_report_stands_alone_and_fits_its_page(browser, tmp_path):
    results = small_results(tmp_path)[1]
    results.manifest.write_text(json.dumps({"profile": "smoke", "notebooks": {}}))
    path = report.write_report(results, SETTINGS, MODELS)
    page = browser.new_page(viewport={"width": 1300, "height": 900})
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    expect(page.locator("h1")).to_contain_text("Segmentation of bone structures")
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0
    page.close()
