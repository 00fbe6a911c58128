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
# **How well are test slices segmented, which no training and no choice has seen?** (section 5.3)
#
# *Reads* the best weights (the classical baseline has none) and the test slices. *Writes*
# per-image counts and label maps, `scores/<model>.csv`, `.json` and `predictions/<model>/`, and
# what explains them: `scores/<model>_surfaces.csv`, `_reliability.csv`, `_false_bone.csv`.

# %% tags=["parameters"]
from bonelib.workflow.runs import open_run
from bonelib.evaluation import evaluate, scoring, error_analysis
from bonelib import figures

profile = "smoke"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
slices_dir = ""
horizons = []
model = "unet"

# %% tags=["nbval-ignore-output"]

# %%
run = open_run(profile, dataset, data_dir, results_dir, overrides, slices_dir)

# %% tags=["nbval-ignore-output"]
scores = evaluate.evaluate(model, run.slices, run.results, run.settings, horizons)

# %% [markdown]
# ## Counts
# One row an image, training horizon and resolution: how many pixels of each reference class
# were predicted as each class.

# %%
print(f"{scores['slice'].groupby(scores['series']).nunique().sum()} test slices, "
      f"after {scores['epochs'].unique().tolist()} epochs, "
      f"on grids {scores['resolution'].unique().tolist()}")

# %% tags=["nbval-ignore-output"]
scores.head()

# %% [markdown]
# ## Pooled scores
# Over all test pixels first, then over the classes.

# %% tags=["nbval-ignore-output"]
scoring.pooled_scores(scores, run.settings).round(2)

# %% [markdown]
# ## Surfaces
# How far found and true surfaces lie apart, mean of the series: on average, and 95 % of them at
# most, in mm; then the share that lies within 1 and 2 mm. A missed structure counts as worst.

# %% tags=["nbval-ignore-output"]
surfaces = scoring.read_surfaces(run.results, [model])
distances = surfaces.groupby(["epochs", "structure"])[scoring.SURFACE_COLUMNS[-4:]].mean()
distances.round(2)

# %% [markdown]
# ## Reliability
# How often each class comes true where its probability lies in one of twenty bins, after the
# longest training: about 0.47 is right for bin 9. The baseline gives no probabilities.

# %% tags=["nbval-ignore-output"]
reliability = scoring.read_reliability(run.results, [model])
longest = reliability[reliability["epochs"] == reliability["epochs"].max()]
pixels = longest.groupby(["bin", "class"])[["positive", "pixels"]].sum()
(pixels["positive"] / pixels["pixels"]).unstack().round(2)

# %% [markdown]
# ## False bone
# What is wrongly called bone, in pixels: place and grey level tell the cause.

# %% tags=["nbval-ignore-output"]
false = scoring.read_false_bone(run.results, [model])
causes = false.groupby(["epochs", "cause"])["pixels"].sum().unstack(fill_value=0)
causes.reindex(columns=error_analysis.CAUSES, fill_value=0)

# %% [markdown]
# ## Worst and best
# Four slices from the highest to the lowest bone IoU, beside their reference.

# %%
figure = figures.best_to_worst(run.slices, run.results, run.settings, scores, model)

# %% [markdown]
# **Found:** the classes order as in the paper, background before patient before bone.
