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
# is complete in one file; `make pdf REPORT=…/report.html` prints it.
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
from bonelib import report
from bonelib.settings import BASELINE
from bonelib.workflow.runs import open_run

# %% tags=["nbval-ignore-output"]
run = open_run(profile, dataset, data_dir, results_dir, overrides)
print(run.banner())

# %%
methods = [*models, BASELINE]

# %% [markdown]
# ## The verdict, computed from the scores
# A claim holds if the whole 95 % interval of the number that decides it lies on the claimed side,
# and does not hold if it lies on the other side. In between, the claim holds within uncertainty.
# A claim about networks is tested only if all of them were trained as long as the paper's and find
# bone.

# %% tags=["nbval-ignore-output"]
evidence = report.gather(run.results, methods, run.settings)
tested = report.findings(evidence)
print(report.verdict(tested))

# %% tags=["nbval-ignore-output"]
tested[["list", "section", "verdict", "claim"]].style.set_table_styles(
    [{"selector": "td, th", "props": "text-align: left"}]
)

# %% [markdown]
# ## The page

# %%
page = report.write_report(run.results, run.settings, methods)
print(page.name)

# %% [markdown]
# **Found:** the verdict above. A claim that needs longer trainings than the run's is not tested.
