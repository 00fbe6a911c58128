# ---
# jupyter:
#   jupytext:
#     cell_metadata_filter: tags,-all
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 7 A bone model
#
# **What does the best network's segmentation give a surgeon?** (sections 1 and 6)
#
# *Reads* one test series and the best network's weights. *Writes* into `meshes/` what
# `python -m bonelib segment` does: label map, `bone.stl` in millimetres, preview, a page with the
# surface in 3-D, there for the run's best network and into `meshes/shipped/` for the shipped network;
# and `figures/bone_model`.

# %% tags=["parameters"]
profile = "newest"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
models = ["fcn8", "fcn32", "pspnet", "unet", "segnet", "vgg_unet", "resnet50_unet"]

# %% tags=["nbval-ignore-output"]
import pandas as pd
import SimpleITK

from bonelib import figures, labels, metrics, paths, pretrained, scans, segment, slices
from bonelib.evaluation import scoring
from bonelib.figures import niivue
from bonelib.segment import surfaces
from bonelib.settings import BONE, IGNORE
from bonelib.workflow.runs import open_run

# %% [markdown]
# ## The networks and the scan
# If no network of the run has found bone yet, the shipped network is used.

# %% tags=["nbval-ignore-output"]
run = open_run(profile, dataset, data_dir, results_dir, overrides)
print(run.banner())

# %%
table = slices.read_table(run.slices.root).query("split == 'test'")
series = table["series"].value_counts().idxmax()
case = next(case for case in run.cases() if case.series_id == series)
scores = scoring.read_scores(run.results, models)
histories = scoring.read_histories(run.results, models)
best = scoring.network_with_bone(scores[scores["series"] == series], run.settings, histories)

# %% tags=["nbval-ignore-output"]
print(f"{series} by {best or 'the shipped network'}")

# %% [markdown]
# ## From the scan to the surface
# The scan is segmented by the run's network, then by the shipped one. The surface is where bone is
# as probable as the likeliest other class, between the voxels.

# %% tags=["nbval-ignore-output"]
of_run = pretrained.network_of_run(best, run.results, run.settings)
networks = {"run's network": of_run, "shipped network": pretrained.find_network()}
folders = dict(zip(networks, (run.results.meshes, run.results.meshes / "shipped"), strict=True))
for title, network in networks.items():
    record = segment.segment(case.scan_path, folders[title], network, case.series, overwrite=True)
    print(f"{title}, {network.name}: {record['volumes_ml']['bone']:,.0f} ml of bone")

# %%
files = {title: paths.SegmentationFolder(folder) for title, folder in folders.items()}
bones = {title: surfaces.read_stl(one.surface) for title, one in files.items()}
print("closed:", all(bone.is_watertight for bone in bones.values()))

# %% tags=["nbval-ignore-output"]
niivue.view_surfaces(bones)

# %% [markdown]
# ## How far they are from the reference
# Dice coefficient and distances between voxels, then distances between surfaces, in both directions.
# The mean distance includes missed and invented bone; the median describes the rest.

# %% tags=["nbval-ignore-output"]
scan, scores = case.scan(), {}
reference = SimpleITK.BinaryThreshold(case.label_map(scan), BONE, IGNORE - 1)
true = SimpleITK.GetArrayFromImage(reference)
for title, bone in bones.items():
    label_map = labels.on_grid(scans.read_volume(files[title].label_map), scan)
    found = SimpleITK.GetArrayFromImage(label_map) == BONE
    dice = metrics.dice(metrics.confusion_matrix(true, found, 2))[1]
    scores[title] = {"Dice %": 100 * dice}
    scores[title] |= metrics.surface_scores(true, found, scan.GetSpacing()[::-1])
    scores[title] |= surfaces.compare(bone, surfaces.bone_surface(reference))
pd.DataFrame(scores).round(2)

# %% tags=["nbval-ignore-output"]
figure, axes = figures.canvas(1, 3, 90)
true_bone = surfaces.bone_surface(reference)
for (title, bone), panel in zip({"reference": true_bone, **bones}.items(), axes.flat, strict=True):
    surfaces.draw_surfaces({title: bone}, panel, "front")
    (left, _, low), (right, _, high) = true_bone.bounds
    panel.set(title=title, xlim=(left - 20, right + 20), ylim=(low - 20, high + 20))
for panel, score in zip(axes.flat[1:], scores.values(), strict=True):
    panel.set_title(f"{panel.get_title()}\nDice {score['Dice %']:.0f} %")
figures.save(figure, "bone_model", run.results.figures)

# %% [markdown]
# **Found:** slices segmented one by one form a closed surface that any mesh viewer opens; how whole
# it is depends on the network.
