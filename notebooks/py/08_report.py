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
# *Reads* scores, histories, figures and the manifest. *Writes* `report.html`, one page that
# needs nothing beside it and prints well.

# %% tags=["parameters"]
from bonelib import replication, report
from bonelib.workflow.runs import open_run

profile = "smoke"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
models = ["fcn8", "fcn32", "pspnet", "unet", "segnet", "vgg_unet", "resnet50_unet"]

# %%

# %%
run = open_run(profile, dataset, data_dir, results_dir, overrides)
methods = run.settings.methods(models)

# %% [markdown]
# ## The verdict, computed from the scores
# A claim holds where the 95 % interval of what decides it lies on the claimed side as a whole,
# and does not where it lies on the other side. In between it holds within uncertainty. What a
# network can do is tested only where its training was as long as the paper's and found bone.

# %% tags=["nbval-ignore-output"]
tested = replication.findings(run.results, methods, run.settings)
print(replication.verdict(tested))

# %% tags=["nbval-ignore-output"]
for title, found in replication.lists(tested).items():
    print(title)
    for number, finding in enumerate(found, 1):
        print(f"{number:>2} {finding.verdict:<25} {finding.section:<18} {finding.claim}")

# %% [markdown]
# ## Does the paper agree with itself?
# Dice is 2 IoU / (1 + IoU) only where both come from the same counts.

# %%
dice = replication.dice_check()
print(f"{dice['agrees'].sum()} of {len(dice)} printed Dice coefficients fit the printed IoU")

# %% [markdown]
# ## The page

# %%
page = report.write_report(run.results, run.settings, methods)
print(page.name)

# %% [markdown]
# **Found:** see the verdict above; the smoke profile trains for seconds and proves only that
# every part works.
