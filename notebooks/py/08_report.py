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
# # 8 The report
#
# **Which of the paper's findings hold here?**
#
# *Reads* tables, figures and the manifest. *Writes* `report.html`, one page that needs
# nothing beside it.

# %% tags=["parameters"]
profile = "smoke"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
models = ["fcn8", "fcn32", "pspnet", "unet", "segnet", "vgg_unet", "resnet50_unet"]

# %%
from bonelib import replication, report, scoring
from bonelib.runs import open_run

# %%
run = open_run(profile, dataset, data_dir, results_dir, overrides)
methods = run.settings.methods(models)

# %% [markdown]
# ## The verdict, computed from the scores

# %% tags=["nbval-ignore-output"]
tested = replication.findings(
    scoring.read_scores(run.results, methods),
    scoring.read_records(run.results, methods),
    run.settings,
    scoring.read_histories(run.results, models),
)
print(replication.verdict(tested))

# %% tags=["nbval-ignore-output"]
for finding in tested:
    print(f"{finding.verdict:<16} {finding.claim}")

# %% [markdown]
# ## The page

# %%
page = report.write_report(run.results, run.settings, methods)
print(page.name)

# %% [markdown]
# **Found:** see the verdict above; the smoke profile trains for seconds and proves only that
# every part works.
