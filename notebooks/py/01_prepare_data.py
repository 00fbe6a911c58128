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
# **What do a CT series and its prepared slices look like?** (section 4)
#
# *Reads* the series of a data set; the phantom is generated if it is missing.
# *Writes* prepared slices: 8-bit images, label maps, `slices.csv`, `dataset.json`.

# %% tags=["parameters"]
profile = "newest"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}

# %%
from bonelib import preparation, slices
from bonelib.devices import num_cores
from bonelib.figures import niivue, pictures
from bonelib.workflow.runs import open_run

# %% [markdown]
# ## The series
# Each series belongs to one split. No patient appears in two splits.

# %% tags=["nbval-ignore-output"]
run = open_run(profile, dataset, data_dir, results_dir, overrides)
print(run.banner())

# %% tags=["nbval-ignore-output"]
cases = run.cases(workers=num_cores())

# %%
for case in cases:
    print(f"{case.split:<11} {case.series_id}")

# %% [markdown]
# ## One scan
# The scan is in Hounsfield units on its own grid. The label map combines the bone mask with the
# patient outline, which is computed from the scan. The planes are those with most bone.

# %%
scan = cases[0].scan()
label_map = cases[0].label_map(scan)
print(f"size {scan.GetSize()}, spacing {scan.GetSpacing()} mm")
figure = pictures.draw_planes(scan, label_map)

# %% [markdown]
# ## Prepared slices
# Every scan is resampled in plane to one spacing, centred in one field of view and windowed to
# 8 bits. The distance between slices is kept.

# %% tags=["nbval-ignore-output"]
table = preparation.prepare(cases, run.slices.root, run.settings, workers=num_cores())

# %%
print(
    f"{run.settings.image_size} pixels of {run.settings.pixel_spacing_mm:g} mm, "
    f"window {run.settings.window_hu} HU"
)
table.groupby("split", sort=False).agg(series=("series", "nunique"), slices=("slice", "size"))

# %% [markdown]
# Choices and repairs made while reading, for example one of several DICOM series or a missing
# slice. An empty table means none.

# %%
slices.read_notes(run.slices.root)

# %% [markdown]
# ## Share of the classes
# The tables of the paper imply 87.5 % background, 11.4 % patient and 1.05 % bone in its test
# set, with a field of view of 800 mm.

# %%
slices.class_shares(run.slices.root, table).round(1)

# %% [markdown]
# ## Browse the scans
# Three planes of any series; bone of the label map is green.

# %% tags=["nbval-ignore-output"]
niivue.browse(cases)

# %% [markdown]
# **Found:** the classes are as unbalanced as in the paper. Bone is about one pixel in a hundred,
# so accuracy says little and IoU must be read class by class.
