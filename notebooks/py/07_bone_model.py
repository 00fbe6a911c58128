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
# *Reads* the best model's label maps of one test series. *Writes* `meshes/bone.stl` in
# millimetres and `figures/bone_model`.

# %% tags=["parameters"]
profile = "smoke"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
models = ["fcn8", "fcn32", "pspnet", "unet", "segnet", "vgg_unet", "resnet50_unet"]

# %%
from bonelib import figures, meshes, slices, tables
from bonelib.runs import open_run
from bonelib.settings import BASELINE

# %%
run = open_run(profile, dataset, data_dir, results_dir, overrides)
series = figures.choose_series(slices.read_table(run.slices.root))
scores = tables.read_scores(run.results, [*models, BASELINE])
scores = scores[scores["series"] == series["series"].iloc[0]]
histories = tables.read_histories(run.results, models)
best, rule = tables.method_with_bone(scores, run.settings, histories)

# %% tags=["nbval-ignore-output"]
print(f"{best}: {rule}")

# %% [markdown]
# ## The label maps of one test series

# %%
labels, spacing_mm = figures.read_volume(run.results, best, series)
print(f"{series['series'].iloc[0]}: {labels.shape} (slice, row, column), spacing {spacing_mm} mm")

# %% [markdown]
# ## The surface

# %%
surface = meshes.bone_surface(labels, spacing_mm)
meshes.write_stl(surface, run.results.meshes / "bone.stl")
print(f"closed: {surface.is_watertight}")

# %% tags=["nbval-ignore-output"]
print(f"{len(surface.faces):,} triangles, {surface.volume / 1000:.0f} ml")

# %%
figure, axes = figures.canvas(1, 2, 3.6, 4.2)
meshes.draw_surface(surface, axes[0, 0], "front")
meshes.draw_surface(surface, axes[0, 1], "side")
figures.save(figure, "bone_model", run.results.figures)

# %% [markdown]
# **Found:** slices segmented one by one join to a closed surface that a mesh viewer opens.
