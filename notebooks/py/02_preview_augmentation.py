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
# # 2 Preview the augmentation
#
# **What does the network see of one slice in training?** (section 4, Figure 2)
#
# *Reads* prepared slices. *Writes* nothing.

# %% tags=["parameters"]
from bonelib import figures, slices
from bonelib.workflow.runs import open_run
from bonelib.figures import previews

profile = "smoke"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}

# %%

# %%
run = open_run(profile, dataset, data_dir, results_dir, overrides)
table = slices.read_table(run.slices.root)
row = figures.choose_levels(table).iloc[0]
example = figures.read_example(run.slices, row)

# %% [markdown]
# ## Each operation by itself
# Label maps follow the geometry by nearest neighbour and ignore the intensities.

# %%
figure = previews.operations(example, run.settings.seed)

# %% [markdown]
# ## The policy
# Flips, crops and affine maps by chance, then none to five of the others, in random order.
# A sample's draw depends on the seed, the epoch and its number only.

# %%
figure = previews.policy_draws(example, run.settings.seed, count=12)

# %% [markdown]
# **Found:** the label maps stay aligned and keep their values under every operation.
