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
# **How close is the phantom to a real scan?** (beyond the paper)
#
# *Reads* nothing; the phantoms are generated here. *Writes* nothing.

# %% tags=["parameters"]
profile = "newest"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
patients = 3

# %%
from bonelib.pretraining import realism
from bonelib.workflow.runs import open_run

# %% tags=["nbval-ignore-output"]
run = open_run(profile, dataset, data_dir, results_dir, overrides)
print(run.banner())

# %% [markdown]
# ## Gallery
# Phantoms with findings that few patients have, from the thighs (left) to the spine (right).

# %%
figure = realism.draw_gallery(run.settings)

# %% [markdown]
# ## HU and class shares
# Medians in HU beside those of one real patient, of the surface (outer 2 mm) and the inside of
# each bone; class shares in % of all pixels at 800 mm field of view beside the paper's test set.

# %%
realism.compare(realism.examples(run.settings, patients))

# %% [markdown]
# **Found:** where the difference is small against the tens of HU by which patients differ, the
# phantom looks as a scanner shows a patient; the other rows are what a better phantom must mend.
