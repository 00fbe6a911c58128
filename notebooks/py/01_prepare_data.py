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
# # 1 Prepare the data
#
# **What does one CT series, and the slices that the networks see, look like?** (section 4)
#
# *Reads* the series of a data set; the phantom is generated first where it is missing.
# *Writes* prepared slices: 8-bit images, label maps, `slices.csv`, `dataset.json`.

# %% tags=["parameters"]
from bonelib import preparation, slices
from bonelib.devices import num_cores
from bonelib.workflow.runs import open_run
from bonelib.figures import previews, browser

profile = "smoke"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}

# %%

# %% [markdown]
# ## The series
# Each series belongs to one split: a patient never lends slices to two.

# %%
run = open_run(profile, dataset, data_dir, results_dir, overrides)

# %% tags=["nbval-ignore-output"]
cases = run.cases(workers=num_cores())

# %%
for case in cases:
    print(f"{case.split:<11} {case.series_id}")

# %% [markdown]
# ## One scan, as it came
# Hounsfield units on the scan's own grid; the label map is computed from the scan (patient)
# and from the bone mask.

# %%
scan = cases[0].scan()
label_map = cases[0].label_map(scan)
print(f"size {scan.GetSize()}, spacing {scan.GetSpacing()} mm")
figure = previews.scan_planes(scan, label_map)

# %% [markdown]
# ## Prepared slices
# In plane every scan is brought to one spacing, centred in one field of view, and windowed to
# 8 bit; slices keep their own distance.

# %% tags=["nbval-ignore-output"]
table = preparation.prepare(cases, run.slices.root, run.settings, workers=num_cores())

# %%
print(f"{run.settings.image_size} pixels of {run.settings.pixel_spacing_mm:g} mm, "
      f"window {run.settings.window_hu} HU")
table.groupby("split", sort=False).agg(series=("series", "nunique"), slices=("slice", "size"))

# %% [markdown]
# What was chosen or repaired as the series were read, such as one of several DICOM series or
# a missing slice; nothing, where there is no row.

# %%
slices.read_notes(run.slices.root)

# %% [markdown]
# ## Share of the classes
# The paper's test set, recovered from its tables, has 87.5 % background, 11.4 % patient and
# 1.05 % bone in a field of 800 mm.

# %%
slices.class_shares(run.slices.root, table).round(1)

# %% [markdown]
# ## Browse
# Choose a series, a slice, a window and whether the label map lies over it.

# %% tags=["nbval-ignore-output"]
browser.browse(cases)

# %% [markdown]
# **Found:** background, patient and bone are as unequal as in the paper: bone is less than one
# pixel in a hundred, so that accuracy says little and IoU must be read class by class.
