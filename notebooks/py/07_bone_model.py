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
# surface in 3-D; and `figures/bone_model`.

# %% tags=["parameters"]
profile = "smoke"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
models = ["fcn8", "fcn32", "pspnet", "unet", "segnet", "vgg_unet", "resnet50_unet"]

# %% tags=["nbval-ignore-output"]
import pandas as pd
import SimpleITK

from bonelib import figures, labels, metrics, paths, scans, segment, slices
from bonelib.evaluation import scoring
from bonelib.figures import niivue
from bonelib.segment import pretrained, surfaces
from bonelib.settings import BONE, IGNORE
from bonelib.workflow.runs import open_run

# %% [markdown]
# ## The network and the scan
# If no network of the run has found bone yet, the shipped network is used.

# %%
run = open_run(profile, dataset, data_dir, results_dir, overrides)
table = slices.read_table(run.slices.root).query("split == 'test'")
series = table["series"].value_counts().idxmax()
case = next(case for case in run.cases() if case.series_id == series)
scores = scoring.read_scores(run.results, models)
histories = scoring.read_histories(run.results, models)
best = scoring.network_with_bone(
    scores[scores["series"] == series], run.settings, histories
)

# %% tags=["nbval-ignore-output"]
print(f"{series} by {best or 'the shipped network'}")

# %% [markdown]
# ## From the scan to the surface
# The scan is segmented slice by slice. The surface is where bone is as probable as the likeliest
# other class, between the voxels.

# %% tags=["nbval-ignore-output"]
network = pretrained.network_of_run(best, run.results, run.settings)
record = segment.segment(
    case.scan_path, run.results.meshes, network, case.series, overwrite=True
)
for name, volume_ml in record["volumes_ml"].items():
    print(f"{name}: {volume_ml:,.0f} ml")

# %%
folder = paths.SegmentationFolder(run.results.meshes)
surface = surfaces.read_stl(folder.surface)
print(f"closed: {surface.is_watertight}")

# %% tags=["nbval-ignore-output"]
niivue.view_surfaces({"bone": surface})

# %% tags=["nbval-ignore-output"]
figure, axes = figures.canvas(1, 2, 107)
surfaces.draw_surface(surface, axes[0, 0], "front")
surfaces.draw_surface(surface, axes[0, 1], "left")
figures.save(figure, "bone_model", run.results.figures)

# %% [markdown]
# ## How far it is from the reference
# Dice coefficient and distances between voxels, then distances between surfaces, in both directions.
# The mean distance includes missed and invented bone; the median describes the rest.

# %% tags=["nbval-ignore-output"]
scan = case.scan()
found = labels.on_grid(scans.read_volume(folder.label_map), scan) == BONE
reference = SimpleITK.BinaryThreshold(case.label_map(scan), BONE, IGNORE - 1)
masks = [SimpleITK.GetArrayFromImage(mask) for mask in (reference, found)]
scores = {"Dice %": 100 * metrics.dice(metrics.confusion_matrix(*masks, 2))[1]}
scores |= metrics.surface_scores(*masks, scan.GetSpacing()[::-1])
scores |= surfaces.compare(surface, surfaces.bone_surface(reference))
pd.Series(scores, name=series).round(2).to_frame()

# %% [markdown]
# **Found:** slices segmented one by one form a closed surface that any mesh viewer opens.
