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
# # 4 Evaluate one method
#
# **How well does the method segment test slices that no training and no choice has seen?**
# (section 5.3)
#
# *Reads* the best weights (the threshold baseline has none) and the test slices. *Writes* the
# confusion counts of each image and the label maps (`scores/<model>.csv`, `.json` and
# `predictions/<model>/`), and an error analysis: `scores/<model>_surfaces.csv`,
# `_reliability.csv`, `_false_bone.csv`.

# %% tags=["parameters"]
profile = "newest"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
slices_dir = ""
model = "unet"

# %% tags=["nbval-ignore-output"]
import pandas as pd

from bonelib import figures, metrics
from bonelib.evaluation import error_analysis, evaluate, scoring
from bonelib.workflow.runs import open_run

# %% tags=["nbval-ignore-output"]
run = open_run(profile, dataset, data_dir, results_dir, overrides, slices_dir)
print(run.banner())

# %% tags=["nbval-ignore-output"]
scores = evaluate.evaluate(model, run.slices, run.results, run.settings)

# %% [markdown]
# ## Counts
# One row per image, number of epochs and resolution: the number of pixels of each reference
# class predicted as each class.

# %%
print(
    f"{scores['slice'].groupby(scores['series']).nunique().sum()} test slices, "
    f"after {scores['epochs'].unique().tolist()} epochs, "
    f"on grids {scores['resolution'].unique().tolist()}"
)

# %% tags=["nbval-ignore-output"]
scores.head()

# %% [markdown]
# ## IoU
# In %, pooled over all test pixels, then averaged over the classes.

# %% tags=["nbval-ignore-output"]
pooled = scores.groupby(["epochs", "resolution"]).apply(scoring.pooled, "iou")
pd.DataFrame([*pooled], pooled.index, scoring.SCORE_COLUMNS)

# %% [markdown]
# ## Surfaces
# Distances between the surfaces of prediction and reference, means over the series: the mean
# distance and the 95th percentile in mm, and the share of surface within 1 and 2 mm. A missed
# structure gets the worst scores.

# %% tags=["nbval-ignore-output"]
surfaces = scoring.read_scores(run.results, [model], "surfaces")
distances = surfaces.groupby(["epochs", "structure"])[[*metrics.SURFACE_SCORES]].mean()
distances.round(2)

# %% [markdown]
# ## Reliability
# Share of pixels that belong to the class, in twenty bins of its probability, after the longest
# training. In bin 9 (45 to 50 %) about 0.47 is right. The baseline has no probabilities.

# %% tags=["nbval-ignore-output"]
reliability = scoring.read_scores(run.results, [model], "reliability")
longest = reliability[reliability["epochs"] == reliability["epochs"].max()]
pixels = longest.groupby(["bin", "class"])[["positive", "pixels"]].sum()
(pixels["positive"] / pixels["pixels"]).unstack().round(2)

# %% [markdown]
# ## False bone
# Pixels wrongly predicted as bone, by cause. Place and grey level tell the cause.

# %% tags=["nbval-ignore-output"]
false = scoring.read_scores(run.results, [model], "false_bone")
causes = false.groupby(["epochs", "cause"])["pixels"].sum().unstack(fill_value=0)
causes.reindex(columns=error_analysis.CAUSES, fill_value=0)

# %% [markdown]
# ## Worst and best
# Four slices from the highest to the lowest bone IoU, beside their reference.

# %%
figure = figures.best_to_worst(run.slices, run.results, scores, model)

# %% [markdown]
# **Found:** the classes rank as in the paper: background, then patient, then bone.
