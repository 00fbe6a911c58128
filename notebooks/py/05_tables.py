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
# # 5 The tables
#
# **How do the networks compare, and how do they compare with the paper's?** (Tables 1 to 4)
#
# *Reads* the scores of the evaluations. *Writes* `tables/table1` to `table4` and the tables of
# the supplement, each as `.csv`, `.md` and `.tex` (booktabs).
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
from bonelib import datasets, tables
from bonelib.evaluation import scoring
from bonelib.settings import BASELINE
from bonelib.workflow.runs import open_run

# %% tags=["nbval-ignore-output"]
run = open_run(profile, dataset, data_dir, results_dir, overrides)
print(run.banner())

# %%
methods = [*models, BASELINE]
scores = scoring.read_scores(run.results, methods)
records = scoring.read_records(run.results, methods)
print(f"{len(scores):,} rows of counts of {scores['model'].nunique()} methods")

# %%
made = tables.all_tables(run.results, methods, run.settings, datasets.note(run.data_dir))
for name, table in made.items():
    tables.save(table, name, run.results.tables)
print(*made)

# %% [markdown]
# ## Table 1: five networks
# Every score has its 95 % interval in small print. The row below holds the paper's value and
# the difference.

# %% tags=["nbval-ignore-output"]
made["table1"]

# %% [markdown]
# ## Table 2: time and parameters

# %% tags=["nbval-ignore-output"]
made["table2"]

# %% [markdown]
# The parameters are the same on every machine:

# %%
for model, record in scoring.read_records(run.results, models).items():
    print(
        f"{model:<14} {record['parameters']:>12,} {record['trainable_parameters']:>12,}"
    )

# %% [markdown]
# ## Table 3: backbones, long training

# %% tags=["nbval-ignore-output"]
made["table3"]

# %% [markdown]
# ## Table 4: series by series

# %% tags=["nbval-ignore-output"]
made["table4"]

# %% [markdown]
# ## Supplement: single images, and the networks' own output grids
# The paper does not say on which grid it scored.

# %% tags=["nbval-ignore-output"]
made["per_image"]

# %% tags=["nbval-ignore-output"]
made["native"]

# %% [markdown]
# ## Supplement: which differences are more than noise?
# Every pair of methods on the same slices. A test on slices alone finds differences too easily,
# since slices of one patient are alike; therefore the interval must agree.

# %% tags=["nbval-ignore-output"]
made["comparisons"]

# %% [markdown]
# ## Supplement: how many millimetres are the surfaces apart?

# %% tags=["nbval-ignore-output"]
made["surfaces"]

# %% tags=["nbval-ignore-output"]
made["surfaces_series"]

# %% [markdown]
# ## Supplement: where and why do they err?
# By level of the pelvis, by calibration of the probabilities, and by cause of false bone.

# %% tags=["nbval-ignore-output"]
made["levels"]

# %% tags=["nbval-ignore-output"]
made["calibration"]

# %% tags=["nbval-ignore-output"]
made["false_bone"]

# %% [markdown]
# ## Supplement: ablations
# Trainings with other settings, for questions that the paper leaves open.

# %% tags=["nbval-ignore-output"]
made["ablations"]

# %% [markdown]
# **Found:** the parameter counts equal the paper's exactly. Every score has its interval and its
# difference from the paper's, and the pairs show which networks differ significantly on so few
# patients.
