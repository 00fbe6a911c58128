"""What a person looks at, in a real browser: the report and the notebooks in JupyterLab."""

import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import numpy as np
import papermill
import pytest
import SimpleITK
import trimesh
from matplotlib.colors import to_rgb
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from bonelib import paths, report
from bonelib.figures.style import BONE_COLOUR, SURFACE_COLOURS
from bonelib.segment import viewer
from tests.synthetic_results import MODELS, SETTINGS, small_results

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MILLISECONDS = 120_000  # that anything may take on a slow machine
# Without a graphics card Chromium draws in software, and wants to be asked for it.
CHROMIUM_OPTIONS = [
    "--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]  # fmt: skip
OWN = ("file:", "data:", "blob:", "http://127.0.0.1")  # addresses on this machine
KERNEL = "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture
def page():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1300, "height": 900})
        page.set_default_timeout(MILLISECONDS)
        expect.set_options(timeout=MILLISECONDS)
        yield page
        browser.close()


@pytest.fixture
def lab(tmp_path):
    """Serve an empty folder with JupyterLab; return the folder and the address."""
    root = tmp_path / "notebooks"
    root.mkdir()
    options = [
        "--allow-root", "--ip=127.0.0.1", "--port-retries=0", "--IdentityProvider.token=",
        "--LabApp.expose_app_in_browser=True", "--LabApp.news_url=None",
    ]  # fmt: skip
    with serve(tmp_path, root, "jupyterlab", *options) as address:
        yield root, address


@contextmanager
def serve(home, folder, module, *options):
    """Run a server's module in a folder; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A home of its own: no workspace or setting of the person who runs the tests.
    environment = {**os.environ, "HOME": str(home)}
    address = f"http://127.0.0.1:{port}"
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", module, "--no-browser", f"--port={port}", *options],
            stdout=log, stderr=log, env=environment, cwd=folder,
        )  # fmt: skip
        try:
            wait_for(lambda: answers(address))
            yield address
        finally:
            server.terminate()
            try:
                server.wait(5)  # its kernels end with it
            except subprocess.TimeoutExpired:
                server.kill()


def wait_for(condition, page=None):
    """Wait until a condition holds; the page goes on meanwhile."""
    end = time.monotonic() + MILLISECONDS / 1000
    while not condition():
        assert time.monotonic() < end
        page.wait_for_timeout(500) if page else time.sleep(0.3)


def answers(address):
    try:
        urllib.request.urlopen(address, timeout=5).close()
    except OSError:
        return False
    return True


def open_notebook(page, address, name):
    page.goto(f"{address}/lab/tree/{name}?reset", wait_until="domcontentloaded")
    expect(page.locator(".jp-Notebook h1").first).to_be_visible(timeout=MILLISECONDS)


def run_all_cells(page):
    page.wait_for_function(f"{KERNEL}?.status === 'idle'")
    # JupyterLab asks a new kernel for its widgets, and loses those made before the answer.
    page.wait_for_timeout(5000)
    assert page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')") is True


def box_at(x, y, z):
    """A box of 20 x 14 x 8 mm around a point in LPS."""
    place = trimesh.transformations.translation_matrix([x, y, z])
    return trimesh.creation.box([20, 14, 8], place)


def pixels(locator):
    """A screenshot as RGB of 8 bits."""
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB"))


def coloured(locator, colour, tolerance=0.08):
    """Where a screenshot has the hue and about the brightness of a colour: (row, column)."""
    picture = pixels(locator) / 255
    wanted = np.array(to_rgb(colour))
    shade = (picture @ wanted / (wanted @ wanted))[..., None]
    same = (np.abs(picture - shade * wanted) < tolerance).all(axis=-1)
    return np.argwhere(same & (shade[..., 0] > 0.5) & (shade[..., 0] < 1.05))


def drag(page, frame, across, down=0):
    box = frame.bounding_box()
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(*middle)
    page.mouse.down()
    page.mouse.move(middle[0] + across, middle[1] + down, steps=5)
    page.mouse.up()


def asked_of_the_network(page):
    """Collect what the page asks for from now on, besides itself."""
    asked = []
    page.on(
        "request",
        lambda request: asked.append(request.url) if not request.url.startswith(OWN) else None,
    )
    return asked


def test_surfaces_are_drawn_upright_from_the_front_and_turn(page, tmp_path):
    asked = asked_of_the_network(page)
    boxes = {"left": box_at(40, 0, 0), "head": box_at(0, 0, 40), "right": box_at(-40, 0, 0)}
    (tmp_path / "bones.html").write_text(viewer.surface_page(boxes, "Bones"))
    page.goto((tmp_path / "bones.html").as_uri())
    canvas = page.locator("canvas")
    expect(canvas).to_be_visible()
    expect(page).to_have_title("Bones")
    page.locator("#legend").evaluate("legend => legend.hidden = true")

    def middles():
        return [coloured(canvas, colour).mean(axis=0) for colour in SURFACE_COLOURS[:3]]

    left, head, right = middles()
    assert left[1] > head[1] + 50 and head[1] > right[1] + 50  # the patient's left is right
    assert head[0] < left[0] - 50 and abs(left[0] - right[0]) < 5  # and the head is up
    width, height = np.ptp(coloured(canvas, SURFACE_COLOURS[1]), axis=0)[::-1]
    assert width / height == pytest.approx(20 / 8, rel=0.15)

    drag(page, canvas, 200)
    page.wait_for_timeout(500)
    turned = middles()
    assert abs(turned[0][1] - turned[2][1]) < 0.97 * abs(left[1] - right[1])
    assert asked == []


# Elements that reach beyond the page and have nothing around them that scrolls.
CUT = """() => [...document.querySelectorAll('body *')].filter(one => !one.closest('.scroll, svg')
    && one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(one => one.outerHTML.slice(0, 80))"""


def test_the_report_stands_alone_fits_its_page_and_prints(page, tmp_path):
    results = small_results(tmp_path)[1]
    results.manifest.write_text(json.dumps({"profile": "smoke", "notebooks": {}}))
    results.meshes.mkdir()
    bone_page = viewer.surface_page({"bone": box_at(0, 0, 0)}, "Bone")
    paths.SegmentationFolder(results.meshes).viewer.write_text(bone_page)
    path = report.write_report(results, SETTINGS, MODELS)
    asked, errors = asked_of_the_network(page), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri())
    expect(page.locator("h1")).to_contain_text("Segmentation of bone structures")
    expect(page.locator("#levels")).to_be_hidden()  # the supplement is folded
    page.locator("summary", has_text="Supplement").click()
    for width, scheme in ((390, "light"), (1280, "dark")):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate(CUT) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        is_dark = pixels(page.locator("h1"))[0, 0].mean() < 128
        assert is_dark == (scheme == "dark")

    frame = page.locator(".turnable iframe")
    frame.scroll_into_view_if_needed()
    expect(frame.content_frame.locator("canvas")).to_be_visible()
    before = len(coloured(frame, BONE_COLOUR))
    assert before > 5000
    drag(page, frame, 150, 60)
    page.wait_for_timeout(500)
    assert abs(len(coloured(frame, BONE_COLOUR)) - before) > 500

    page.reload()
    page.set_viewport_size({"width": 680, "height": 900})  # A4 less its margins
    page.emulate_media(media="print")
    assert page.evaluate(CUT) == []
    page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
    pages = re.findall(rb"/Type /Page\b", (tmp_path / "report.pdf").read_bytes())
    assert 10 <= len(pages) <= 40
    expect(page.locator("#levels")).to_be_visible()  # on paper nothing is folded
    assert asked == errors == []


def test_every_notebook_opens_in_jupyterlab_with_its_outputs(page, lab):
    root, address = lab
    notebooks = sorted(paths.NOTEBOOKS.glob("*.ipynb"))
    assert len(notebooks) == 11
    for notebook in notebooks:
        shutil.copy(notebook, root)
        open_notebook(page, address, notebook.name)
        expect(page.locator(".jp-OutputArea-output").first).to_be_attached(timeout=MILLISECONDS)


def open_with_parameters(page, lab, name, parameters):
    """Open a notebook in JupyterLab with parameters, and run it."""
    root, address = lab
    notebook = papermill.iorw.load_notebook_node(str(paths.NOTEBOOKS / name))
    notebook = papermill.parameterize.parameterize_notebook(notebook, parameters)
    papermill.iorw.write_ipynb(notebook, str(root / name))
    open_notebook(page, address, name)
    run_all_cells(page)


def assert_changes(page, locator, before):
    """Wait until a picture differs from the one before; return the new one."""
    wait_for(lambda: locator.screenshot() != before, page)
    return locator.screenshot()


def wait_for_bone(page, locator):
    """Wait until a scan's label map is drawn: bone is green over any grey."""

    def is_green():
        red, green, _ = np.moveaxis(pixels(locator).astype(int), -1, 0)
        return (green - red > 40).sum() > 20

    wait_for(is_green, page)


def test_any_series_is_browsed_in_jupyterlab(page, lab, write_dataset, tmp_path):
    asked = asked_of_the_network(page)
    parameters = {
        "profile": "smoke", "dataset": "folder", "data_dir": str(write_dataset()),
        "results_dir": str(tmp_path / "results"), "overrides": {"image_size": 64},
    }  # fmt: skip
    open_with_parameters(page, lab, "01_prepare_data.ipynb", parameters)
    canvas = page.locator("canvas")
    canvas.scroll_into_view_if_needed()
    wait_for_bone(page, canvas)
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + 0.25 * box["width"], box["y"] + 0.75 * box["height"])
    line = page.locator(".widget-html-content").last
    expect(line).to_contain_text("HU at the cross")

    seen, said = canvas.screenshot(), line.inner_text()
    page.mouse.wheel(0, 200)
    seen = assert_changes(page, canvas, seen)  # another slice
    page.get_by_label("window").select_option("soft tissue")
    seen = assert_changes(page, canvas, seen)
    page.get_by_label("series").select_option("c (test)")
    assert_changes(page, canvas, seen)
    assert "HU" in said and asked == []


def thighs(slices):
    """Two thighs with a femur's shaft each, of 28.3 ml in 8 slices of 5 x 2.5 x 2.5 mm, in HU."""
    row, column = np.mgrid[:90, :150]
    image_hu = np.full((slices, 90, 150), -1000, np.int16)
    for middle in (45, 105):
        distance = np.hypot(row - 45, column - middle)
        for radius, hu in ((28, -100), (24, 55), (6, 1100), (3, 0)):
            image_hu[:, distance < radius] = hu
    return image_hu


def test_a_scan_is_chosen_segmented_looked_at_and_taken_away(
    page, lab, write_dataset, write_series, make_image, tmp_path
):
    root, _ = lab
    scan = root / "thighs.nii.gz"
    SimpleITK.WriteImage(make_image(thighs(8), (5, 2.5, 2.5)), str(scan))
    write_series(
        root / "mine", thighs(6), (5, 2.5, 2.5),
        change=lambda file, _: setattr(file, "FrameOfReferenceUID", "1.2.4"),
    )  # fmt: skip
    parameters = {
        "profile": "smoke", "dataset": "folder", "data_dir": str(write_dataset()),
        "results_dir": str(tmp_path / "results"), "scan": str(scan),
        "output": str(root / "my results"),
    }  # fmt: skip
    open_with_parameters(page, lab, "09_segment_your_scan.ipynb", parameters)
    controls = page.locator(".jp-OutputArea-output", has=page.get_by_text("single bones"))
    expect(controls).to_contain_text("150 x 90 x 8 voxels")
    expect(controls).to_contain_text("done in")
    expect(page.locator("[data-mime-type$=stderr]", has_text="oneDNN")).to_have_count(0)
    wait_for_bone(page, controls.locator("canvas"))

    # Turn
    surface = page.locator("canvas").last
    surface.scroll_into_view_if_needed()
    before = surface.screenshot()
    drag(page, surface, 150, 40)
    assert_changes(page, surface, before)

    # Read, and take away
    measures = page.locator("table", has_text="mean HU").locator("tr", has_text="bone").first
    volume_ml = float(measures.locator("td").first.inner_text())
    assert volume_ml == pytest.approx(2 * 28.3, rel=0.2)
    files = page.locator(".widget-html-content", has_text="segmentation.nii.gz")
    (folder,) = (root / "my results").iterdir()
    for file in ("segmentation.nii.gz", "bone.stl", "report.json"):
        with page.expect_download() as download:
            files.get_by_role("link", name=file, exact=True).click()
        assert download.value.path().read_bytes() == (folder / file).read_bytes()

    # Another scan takes its place on the screen
    field = controls.get_by_label("path")
    field.fill(str(root / "mine"))
    field.press("Enter")
    expect(controls).to_contain_text("150 x 90 x 6 voxels")
    expect(files).to_have_count(0)
    controls.get_by_label("single bones").uncheck()
    controls.get_by_role("button", name="Segment").click()
    expect(files).to_contain_text("segmentation.dcm")
    (other,) = set((root / "my results").iterdir()) - {folder}
    assert (other / "bone.stl").exists() and not (other / "bones").exists()


def test_the_application_opens_empty_stops_and_segments(page, make_image, tmp_path):
    folder = tmp_path / "app" / "notebooks"
    shutil.copytree(paths.NOTEBOOKS, folder, ignore=shutil.ignore_patterns("*.ipynb", "py"))
    scan = tmp_path / "thighs.nii.gz"
    SimpleITK.WriteImage(make_image(thighs(8), (5, 2.5, 2.5)), str(scan))
    asked = []
    page.on("response", lambda response: asked.append(response.url))
    with serve(tmp_path, folder, "voila", "app.py") as address:
        page.goto(address)
        field = page.get_by_label("path")
        field.fill(str(scan))
        field.press("Enter")
        expect(page.get_by_text("150 x 90 x 8 voxels")).to_be_visible()
        page.get_by_role("button", name="Segment").click()
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_text("stopped; no result was written")).to_be_visible()
        page.get_by_role("button", name="Segment").click()
        expect(page.get_by_text("done in")).to_be_visible()
        wait_for_bone(page, page.locator("canvas").first)
        expect(page.get_by_text("segmentation.nii.gz")).to_be_visible()
        assert len(list((tmp_path / "app/results/segmentation").iterdir())) == 1
    assert asked and all(url.startswith(OWN) for url in asked)  # nothing else may answer
