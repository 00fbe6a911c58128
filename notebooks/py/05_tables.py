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
# *Reads* the scores of every method. *Writes* `tables/table1` to `table4` and two
# supplementary tables, each as `.csv`, `.md` and `.tex`.

# %% tags=["parameters"]
profile = "smoke"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
models = ["fcn8", "fcn32", "pspnet", "unet", "segnet", "vgg_unet", "resnet50_unet"]

# %%
from bonelib import datasets, report, scoring, tables
from bonelib.runs import open_run

# %%
run = open_run(profile, dataset, data_dir, results_dir, overrides)
methods = run.settings.methods(models)
scores = scoring.read_scores(run.results, methods)
records = scoring.read_records(run.results, methods)
histories = scoring.read_histories(run.results, models)
print(f"{len(scores):,} rows of counts of {scores['model'].nunique()} methods")

# %%
made = report.all_tables(scores, records, run.settings, histories, datasets.note(dataset))
for name, table in made.items():
    tables.save(table, name, run.results.tables)

# %% [markdown]
# ## Table 1: five networks

# %% tags=["nbval-ignore-output"]
made["table1"]

# %% [markdown]
# ## Table 2: time and parameters

# %% tags=["nbval-ignore-output"]
made["table2"]

# %% [markdown]
# The parameters, which no machine changes:

# %%
for model in models:
    print(f"{model:<14} {records[model]['parameters']:>12,} {records[model]['trainable_parameters']:>12,}")

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
# **Found:** the parameters are the paper's to the last one; the scores stand beside the
# paper's with their differences.
