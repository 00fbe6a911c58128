"""What a person looks at, in a real browser: the report and the notebooks in JupyterLab."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import papermill
import pytest
from playwright.sync_api import expect, sync_playwright

from bonelib import paths, report
from tests.synthetic_results import MODELS, SETTINGS, small_results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MILLISECONDS = 120_000  # that anything may take on a slow machine
KERNEL = "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture
def page():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.set_default_timeout(MILLISECONDS)
        yield page
        browser.close()


@pytest.fixture
def lab(tmp_path):
    """Serve an empty folder with JupyterLab; return the folder and the address."""
    root = tmp_path / "notebooks"
    root.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--port-retries=0",
        "--IdentityProvider.token=", f"--ServerApp.root_dir={root}",
        "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
    ]  # fmt: skip
    # A home of its own: no workspace or setting of the person who runs the tests.
    environment = {**os.environ, "HOME": str(tmp_path)}
    address = f"http://127.0.0.1:{port}"
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], stdout=log, stderr=log, env=environment
        )
        try:
            wait_for(f"{address}/api")
            yield root, address
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def wait_for(address):
    end = time.monotonic() + MILLISECONDS / 1000
    while True:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.3)


def open_notebook(page, address, name):
    page.goto(f"{address}/lab/tree/{name}?reset", wait_until="domcontentloaded")
    expect(page.locator(".jp-Notebook h1").first).to_be_visible(timeout=MILLISECONDS)


def test_the_report_stands_alone_and_fits_its_page(page, tmp_path):
    results = small_results(tmp_path)[1]
    results.manifest.write_text(json.dumps({"profile": "smoke", "notebooks": {}}))
    path = report.write_report(results, SETTINGS, MODELS)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    expect(page.locator("h1")).to_contain_text("Segmentation of bone structures")
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0


def test_every_notebook_opens_in_jupyterlab_with_its_outputs(page, lab):
    root, address = lab
    notebooks = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
    assert len(notebooks) == 9
    for notebook in notebooks:
        shutil.copy(notebook, root)
        open_notebook(page, address, notebook.name)
        expect(page.locator(".jp-OutputArea-output").first).to_be_attached(timeout=MILLISECONDS)


def test_the_slice_browser_works_in_jupyterlab(page, lab, write_dataset, tmp_path):
    root, address = lab
    name = "01_prepare_data.ipynb"
    notebook = papermill.iorw.load_notebook_node(str(paths.NOTEBOOKS / name))
    notebook = papermill.parameterize.parameterize_notebook(
        notebook,
        {
            "dataset": "folder",
            "data_dir": str(write_dataset()),
            "results_dir": str(tmp_path / "results"),
            "overrides": {"image_size": 64},
        },
    )
    papermill.iorw.write_ipynb(notebook, str(root / name))
    open_notebook(page, address, name)
    page.wait_for_function(f"{KERNEL}?.status === 'idle'")
    assert page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')") is True

    picture = page.locator("img.widget-image")
    picture.scroll_into_view_if_needed()
    seen = [picture.get_attribute("src")]
    caption = page.locator(".widget-html-content").last
    expect(caption).to_contain_text("slice 2 of 0 to 5")
    page.locator(".widget-dropdown select").nth(1).select_option("soft tissue")
    expect(picture).not_to_have_attribute("src", seen[0])
    seen.append(picture.get_attribute("src"))
    page.locator(".widget-dropdown select").first.select_option("c (test)")
    expect(picture).not_to_have_attribute("src", seen[1])
