import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import trimesh
from markupsafe import escape
from matplotlib import pyplot as plt
from playwright.sync_api import sync_playwright

from bonelib import figures, replication, report, tables
from bonelib.evaluation import scoring
from bonelib.paths import ResultFolder
from bonelib.provenance import write_json
from bonelib.report.sentences import sentences
from bonelib.settings import deviations
from tests.synthetic_results import MODELS, SETTINGS, small_results
from tests.test_browser import CHROMIUM, CHROMIUM_OPTIONS, MILLISECONDS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    results = small_results(tmp_path_factory.mktemp("run"))[1]
    figure, axes = figures.canvas(1, 1)
    figures.figure5(scoring.read_histories(results, ["unet"])["unet"], axes[0, 0])
    figures.save(figure, "figure5", results.figures)
    plt.close(figure)
    results.meshes.mkdir()
    (results.meshes / "test01.stl").write_bytes(b"")
    notebook = {"status": "done", "seconds": 12.3, "notebook": "notebooks/03_train.ipynb"}
    write_json(
        results.manifest,
        {
            "dataset": "phantom",
            "seed": 7,
            "git_commit": "abc<&>def",
            "versions": {"keras": "3.99.1"},
            "device": {"processor": "abacus", "gpus": []},
            "notebooks": {"03_train_model-unet": notebook},
        },
    )
    return results


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.targets, self.stack = [], []

    def handle_starttag(self, tag, attributes):
        self.targets += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def test_report_is_one_file_with_everything(run):
    path = report.write_report(run, SETTINGS, MODELS)
    text = path.read_text()
    links = Links()
    links.feed(text)
    assert not links.stack
    pictures = [target for target in links.targets if target.startswith("data:image/png")]
    others = [target for target in links.targets if not target.startswith("data:")]
    assert len(pictures) == 1
    inside = {target[1:] for target in others if target.startswith("#")}
    assert inside >= set(report.PARTS) and inside <= set(re.findall('id="([^"]+)"', text))
    doi = "https://doi.org/10.24425/bpasts.2021.136751"
    assert [target for target in others if not target.startswith("#")] == [
        "meshes/test01.stl", doi, "notebooks/03_train.ipynb",
    ]  # fmt: skip
    words = re.sub("<[^>]*>", " ", text)
    tested = replication.findings(run, MODELS, SETTINGS)
    made = tables.all_tables(run, MODELS, SETTINGS)
    for expected in (
        replication.verdict(tested),
        *(html.escape(table.caption, quote=False) for table in made.values()),
        f"{made['table1'].frame['bone'].iloc[0]:.2f}",
        *(escape(caption) for name, caption in figures.CAPTIONS.items() if "figure" in name),
        "not clinical",
        "3.99.1",
        "abacus",
        "abc&lt;&amp;&gt;def",
        "12.3",
        "24 of the 24 printed values agree",
        *(escape(item.claim) for item in tested),
        *(item["setting"] for item in deviations(SETTINGS)),
        *replication.lists(tested),
    ):
        assert str(expected) in words
    assert words.index(replication.verdict(tested)) < words.index(made["table1"].caption)
    assert not list(run.root.glob(".*report.html"))


def test_parts_and_figures_come_in_the_papers_order(run):
    text = report.write_report(run, SETTINGS, MODELS).read_text()
    places = [text.index(f'id="{name}"') for name in report.PARTS]
    assert places == sorted(places)
    names = [name for name in figures.CAPTIONS if name.startswith("figure")]
    order = sorted(names, key=lambda name: text.index(f'id="{name}"'))
    papers = [name for name in order if "S" not in name]
    assert sorted(papers) == papers and order[-6:] == names[-6:]
    assert text.index('id="table1"') < text.index('id="table4"') < text.index('id="native"')


def test_sentences_are_computed(run):
    evidence = replication.gather(run, MODELS, SETTINGS)
    made = sentences(evidence)
    history = evidence.history()
    assert f"to {100 * history['val_accuracy'].iloc[-1]:.2f} % on the validation" in made["figure3"]
    best = scoring.pooled(scoring.select(evidence.scores, "unet", SETTINGS.epochs), "iou")[0]
    assert f"U-net has the best mean IoU, {best:.2f} (" in made["summary"]
    assert "ResNet-U-net is first with" in made["table3"]
    assert "5 of 5 networks have the paper's number" in made["table2"]
    assert "beside bone" in made["false_bone"]
    other = replace(SETTINGS, class_scheme="bones")
    assert sentences(replication.gather(run, MODELS, other)) == {}
    assert "table1" not in sentences(replication.gather(run, ["unet"], SETTINGS))


def test_the_bone_model_turns_on_the_page_and_is_left_out_where_there_is_none(tmp_path):
    results = small_results(tmp_path)[1]
    assert "<iframe" not in report.write_report(results, SETTINGS, MODELS).read_text()
    results.meshes.mkdir()
    trimesh.creation.icosphere(2, 40.0).export(results.meshes / "bone.stl")
    text = report.write_report(results, SETTINGS, MODELS).read_text()
    links = Links()
    links.feed(text)
    assert not links.stack and text.count("<iframe") == 1
    beside = ("data:", "#", "https://doi.org/")
    assert {target for target in links.targets if not target.startswith(beside)} == {
        "meshes/bone.stl"
    }
    assert "right button" in re.sub("<[^>]*>", " ", text)


def test_a_run_with_nothing_in_it_is_reported(tmp_path):
    text = report.write_report(ResultFolder(tmp_path), SETTINGS, MODELS).read_text()
    assert text.count("not run") >= 4 + 13  # tables and figures
    assert "0 could be tested here" in text


PRINTED_PIXELS = 680  # between the margins of a portrait A4 page, at 96 to the inch
CUT = """() => [...document.querySelectorAll('table, figure, img, p, li')]
    .filter(one => one.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
    .map(one => one.outerHTML.slice(0, 80))"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_prints_without_a_cut_and_without_an_error(run, tmp_path):
    path = report.write_report(run, SETTINGS, MODELS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": PRINTED_PIXELS, "height": 900})
        page.set_default_timeout(MILLISECONDS)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(path.as_uri())
        narrow = page.evaluate("document.documentElement.scrollWidth")
        page.emulate_media(media="print")
        cut = page.evaluate(CUT)
        page.pdf(path=tmp_path / "report.pdf", prefer_css_page_size=True)
        browser.close()
    assert narrow <= PRINTED_PIXELS and not cut and not errors
    pages = re.findall(rb"/Type /Page\b", (tmp_path / "report.pdf").read_bytes())
    assert 10 <= len(pages) <= 60
