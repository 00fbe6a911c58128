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
# # 10 Phantom versus reality
#
# **How far is the phantom from a patient?** (beyond the paper)
#
# *Reads* nothing that it does not make, but the label maps of patients (`label_maps`, a data
# set of that name) and a real CT (`real_scan`) where their paths are given. *Writes* nothing.

# %% tags=["parameters"]
from pathlib import Path

from bonelib import scans
from bonelib.phantom import BONE_NAMES
from bonelib.workflow.runs import open_run
from bonelib.pretraining import realism

profile = "smoke"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
patients = 3
label_maps = ""
real_scan = ""

# %%

# %%
run = open_run(profile, dataset, data_dir, results_dir, overrides)
series = realism.example_series(patients, run.settings)

# %% [markdown]
# ## A look
# From the thighs to the spine.

# %%
named = {f"patient {number}": each for number, each in enumerate(series, 1)}
figure = realism.draw_slices(named, (0.1, 0.45, 0.65, 0.75, 0.95))

# %% [markdown]
# Some of what few patients have, with the tube voltage, kernel and dose that their seeds draw.

# %%
figure = realism.draw_slices(realism.unusual_series(run.settings), (0.2, 0.5, 0.67, 0.83))

# %% [markdown]
# ## HU of tissues
# Quantiles beside those of one real patient. The aim: medians within 40 HU, quartiles that
# overlap.

# %%
realism.tissue_hu(series, BONE_NAMES)

# %% [markdown]
# ## Shares
# Classes in % of all pixels at 800 mm field of view, beside the paper's test set; then parts of
# the body, beside one real patient.

# %%
realism.shares(series)

# %% [markdown]
# ## Bones by level
# Area and perimeter beside the mean of three annotated men; more annotated patients are drawn
# where they are given. The phantom is women, too.

# %%
levels = [realism.bone_levels(each.bones, BONE_NAMES) for each in series]
given = realism.annotated_bones(label_maps).values()
annotated = [realism.real_levels(), *(realism.bone_levels(*bones) for bones in given)]
figure = realism.draw_levels(levels, annotated)

# %%
realism.compare_levels(levels)

# %% [markdown]
# ## Noise
# In the calmest soft tissue: the standard deviation in HU, and the distance in mm at which the
# autocorrelation falls to one half. A real abdomen, of a standard kernel, had 0.73 mm.

# %%
real = [scans.read_scan(Path(path)) for path in filter(None, [real_scan])]
realism.noise_table([each.scan for each in series], real)

# %% [markdown]
# **Found:** where the table says so, the phantom's tissues look as a scanner shows a patient's;
# the rest is what a better phantom has to mend.
