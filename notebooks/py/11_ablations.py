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
# # 11 Ablations
#
# **Which results depend on choices that the paper leaves open, and which on chance?** (beyond
# the paper)
#
# *Reads* the scores of U-net and of the variants that `run_all.py --ablations` trains.
# *Writes* nothing; notebook 5 writes the table.
#
# It opens with the kept reference run; `profile = "newest"` shows your newest one.

# %% tags=["parameters"]
profile = "reference"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}

# %%
from bonelib.evaluation import variants
from bonelib.tables import ablation_table
from bonelib.workflow.runs import open_run

# %% [markdown]
# ## The questions

# %%
for variant in variants.VARIANTS:
    print(f"{variant.name:<22} {variant.question}\n{'':<22} Open because {variant.reason}.")

# %% [markdown]
# ## The trainings
# Each differs from the run's own training in the settings of its variant and in its random
# numbers.

# %% tags=["nbval-ignore-output"]
run = open_run(profile, dataset, data_dir, results_dir, overrides)
print(run.banner())

# %%
scores = variants.read_ablations(run.results, run.settings)

# %% tags=["nbval-ignore-output"]
scores

# %% [markdown]
# ## The answers
# Without trainings to compare, the table says how to run them.

# %% tags=["nbval-ignore-output"]
ablation_table(run.results, run.settings)

# %% [markdown]
# **Found** in the reference run: U-net gains 15 points of bone IoU without augmentation, and two
# thirds of them with augmentation and recomputed batch-norm statistics. A difference within the
# spread of repeated trainings may be chance; the table marks the larger ones.
