import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import trimesh
from matplotlib import pyplot as plt

from bonelib import figures, replication, report, scoring, tables
from bonelib.paths import ResultFolder
from bonelib.provenance import write_json
from bonelib.replication import FAILS, HOLDS, UNTESTED, findings, verdict
from bonelib.settings import deviations
from tests.synthetic_results import MODELS, SETTINGS, small_results


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


def inputs(results, models=MODELS):
    return (
        scoring.read_scores(results, models),
        scoring.read_records(results, models),
        SETTINGS,
        scoring.read_histories(results, models),
    )


def by_claim(found, words):
    (finding,) = [item for item in found if words in item.claim]
    return finding


def test_findings_follow_the_scores(run):
    scores, records, settings, histories = inputs(run)
    found = findings(scores, records, settings, histories)
    assert by_claim(found, "rank by mean IoU").verdict == HOLDS
    assert by_claim(found, "best of the five").verdict == HOLDS
    assert by_claim(found, "Mean pixel accuracy").verdict == FAILS
    assert by_claim(found, "parameter counts").ours == "5 of 5 equal"
    swap = {"unet": "fcn32", "fcn32": "unet"}
    swapped = scores.assign(model=scores["model"].replace(swap))
    found = findings(swapped, records, settings, histories)
    assert by_claim(found, "rank by mean IoU").verdict == FAILS
    assert by_claim(found, "best of the five").verdict == FAILS
    assert "best mean: FCN32" in by_claim(found, "best of the five").why
    assert by_claim(found, "behind U-net").verdict == FAILS


def test_costs_are_compared(run):
    scores, records, settings, _ = inputs(run)
    records["unet"] = records["fcn8"] | {"milliseconds_per_slice": 99.0}
    found = findings(scores, records, settings)
    assert by_claim(found, "smaller than FCN8").verdict == FAILS
    assert by_claim(found, "faster than FCN8").verdict == FAILS
    assert by_claim(found, "parameter counts").verdict == FAILS


def test_random_encoders_test_nothing(run):
    scores, records, settings, _ = inputs(run)
    assert by_claim(findings(scores, records, settings), "VGG-U-net beats").verdict == HOLDS
    records["vgg_unet"] = records["vgg_unet"] | {"encoder_weights": "random"}
    finding = by_claim(findings(scores, records, settings), "VGG-U-net beats U-net")
    assert finding.verdict == UNTESTED and "random encoder" in finding.why


def test_what_was_not_run_is_not_tested(run):
    found = findings(*inputs(run, ["unet"]))
    ranking = by_claim(found, "rank by mean IoU")
    assert ranking.verdict == UNTESTED and "FCN32" in ranking.why
    assert by_claim(found, "Longer training").verdict != UNTESTED
    assert all(item.verdict == UNTESTED for item in findings(*inputs(run, [])))


def test_a_class_without_pixels_is_no_score(run):
    scores, records, settings, _ = inputs(run)
    bone = [name for name in scoring.COUNT_COLUMNS if "2" in name]
    finding = by_claim(
        findings(scores.assign(**dict.fromkeys(bone, 0)), records, settings),
        "Every test",
    )
    assert finding.verdict == UNTESTED


def test_findings_on_the_papers_classes_are_not_tested_on_others(run):
    scores, records, settings, histories = inputs(run)
    bones = replace(settings, class_scheme="bones")
    found = findings(scores, records, bones, histories)
    assert len(found) == len(replication.CLAIMS)
    for item in found:
        assert item.verdict == UNTESTED and "class scheme bones" in item.why and not item.ours


def test_verdict_counts():
    made = [replication.Finding("", "", "", word) for word in (HOLDS, HOLDS, FAILS, UNTESTED)]
    assert verdict(made) == ("2 of 3 findings tested here hold, 1 do not; 1 of 4 were not tested.")


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
    assert others == ["#protocol", "meshes/test01.stl", "notebooks/03_train.ipynb"]
    words = re.sub("<[^>]*>", " ", text)
    table = tables.table1(scoring.read_scores(run, MODELS), SETTINGS)
    for expected in (
        verdict(findings(*inputs(run))),
        table.caption,
        f"{table.frame['bone'].iloc[0]:.2f}",
        figures.CAPTIONS["figure5"],
        "not clinical",
        "3.99.1",
        "abacus",
        "abc&lt;&amp;&gt;def",
        "12.3",
        *(item["setting"] for item in deviations(SETTINGS)),
    ):
        assert str(expected) in words
    assert words.index(verdict(findings(*inputs(run)))) < words.index(table.caption)
    assert not list(run.root.glob(".*report.html"))


def test_the_bone_model_turns_on_the_page_and_is_left_out_where_there_is_none(tmp_path):
    results = small_results(tmp_path)[1]
    assert "<iframe" not in report.write_report(results, SETTINGS, MODELS).read_text()
    results.meshes.mkdir()
    trimesh.creation.icosphere(2, 40.0).export(results.meshes / "bone.stl")
    text = report.write_report(results, SETTINGS, MODELS).read_text()
    links = Links()
    links.feed(text)
    assert not links.stack and text.count("<iframe") == 1
    assert {target for target in links.targets if not target.startswith(("data:", "#"))} == {
        "meshes/bone.stl"
    }
    assert "right button" in re.sub("<[^>]*>", " ", text)


def test_a_run_with_nothing_in_it_is_reported(tmp_path):
    text = report.write_report(ResultFolder(tmp_path), SETTINGS, MODELS).read_text()
    assert text.count("not run") >= 6 + 7  # tables and figures
    assert "0 of 0 findings" in text
