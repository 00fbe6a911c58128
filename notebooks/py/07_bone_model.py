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
# `python -m bonelib segment` does: label map, `bone.stl` in millimetres, preview, a page that turns
# the surface; and `figures/bone_model`.

# %% tags=["parameters"]
from dataclasses import replace

from bonelib import figures, paths, slices
from bonelib.workflow.runs import open_run
from bonelib.figures import examples, niivue
from bonelib.segment import surfaces, agreement, segmentation
from bonelib.evaluation import scoring

profile = "smoke"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
models = ["fcn8", "fcn32", "pspnet", "unet", "segnet", "vgg_unet", "resnet50_unet"]

# %% tags=["nbval-ignore-output"]

# %% [markdown]
# ## The network and the scan
# Where the run's networks have found no bone yet, the network that the package ships takes over.

# %%
run = open_run(profile, dataset, data_dir, results_dir, overrides)
series = examples.choose_series(slices.read_table(run.slices.root))["series"].iloc[0]
case = next(case for case in run.cases() if case.series_id == series)
scores = scoring.read_scores(run.results, run.settings.methods(models))
histories = scoring.read_histories(run.results, models)
best, rule = scoring.network_with_bone(
    scores[scores["series"] == series], run.settings, histories
)

# %% tags=["nbval-ignore-output"]
print(f"{series} by {best or 'the shipped network'}: {rule}")

# %% [markdown]
# ## From the scan to the surface
# The scan is segmented slice by slice. The surface lies where bone is as probable as the rest,
# between the voxels.

# %% tags=["nbval-ignore-output"]
options = replace(segmentation.options_for(best, run), series=case.series)
record = segmentation.segment(case.scan_path, run.results.meshes, options)
for name, volume_ml in record["volumes_ml"].items():
    print(f"{name}: {volume_ml:,.0f} ml")

# %%
folder = paths.SegmentationFolder(run.results.meshes)
surface = surfaces.read_surface(folder.surface)
print(f"closed: {surface.is_watertight}")

# %% tags=["nbval-ignore-output"]
niivue.view_surfaces({"bone": surface})

# %% tags=["nbval-ignore-output"]
figure, axes = figures.canvas(1, 2, 3.6, 4.2)
surfaces.draw_surface(surface, axes[0, 0], "front")
surfaces.draw_surface(surface, axes[0, 1], "side")
figures.save(figure, "bone_model", run.results.figures)

# %% [markdown]
# ## How far it lies from the bone as drawn
# Overlap and distances of the voxels, then of the surfaces, in both directions. A mean contains what
# was missed or invented; a median says how exactly the rest is placed.

# %% tags=["nbval-ignore-output"]
agreement.with_reference(folder, case).T.set_axis([series], axis=1).round(2)

# %% [markdown]
# **Found:** slices segmented one by one join to a closed surface that a mesh viewer opens.
