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
# # 6 The figures
#
# **What do the data, the training and the segmentations look like, and where are the errors?**
# (Figures 1 to 7 and a supplement)
#
# *Reads* prepared slices, histories, scores and predictions; a figure without its files is
# skipped with a note. *Writes* `figures/figure1` to `figure7` and `figureS1_…` to `figureS6_…`,
# as `.png` and `.pdf` at the width of a journal's column or page.
#
# It opens with the kept reference run; `profile = "newest"` shows your newest one.

# %% tags=["parameters"]
profile = "reference"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
models = ["fcn8", "fcn32", "pspnet", "unet", "segnet", "vgg_unet", "resnet50_unet"]

# %%
from bonelib import figures
from bonelib.workflow.runs import open_run

# %% tags=["nbval-ignore-output"]
run = open_run(profile, dataset, data_dir, results_dir, overrides)
print(run.banner())

# %%
made = figures.all_figures(run.slices, run.results, run.settings, models)
for name, figure in made.items():
    figures.save(figure, name, run.results.figures)
print(figures.summary(made))

# %% [markdown]
# ## Figure 1: example slices

# %%
made.get("figure1")

# %% [markdown]
# ## Figure 2: augmentation

# %%
made.get("figure2")

# %% [markdown]
# ## Figures 3 to 5: the training

# %%
made.get("figure3")

# %%
made.get("figure4")

# %%
made.get("figure5")

# %% [markdown]
# ## Figure 6: one slice, every method
# The slice is chosen by a rule, not by hand; the caption states it.

# %% tags=["nbval-ignore-output"]
made.get("figure6")

# %% [markdown]
# ## Figure 7: from best to worst

# %% tags=["nbval-ignore-output"]
made.get("figure7")

# %% [markdown]
# ## Figure S1: which differences are significant

# %%
made.get("figureS1_comparisons")

# %% [markdown]
# ## Figures S2 and S3: bone IoU by level of the pelvis and by bone area

# %%
made.get("figureS2_levels")

# %%
made.get("figureS3_bone_size")

# %% [markdown]
# ## Figure S4: confusion matrices

# %%
made.get("figureS4_confusion")

# %% [markdown]
# ## Figure S5: calibration of the probabilities

# %%
made.get("figureS5_reliability")

# %% [markdown]
# ## Figure S6: false bone by cause

# %%
made.get("figureS6_false_bone")

# %% [markdown]
# **Found:** the seven figures of the paper, and a supplement on the errors. Notebook 8 computes
# which findings of the paper they support.
