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
# # 9 Segment your scan
#
# **Where is the bone in my own CT, and what does it look like in 3-D?** (sections 1 and 6)
#
# You need not program: choose **Run > Run All Cells** in the menu, then use the buttons below.
#
# *Reads* a CT series: a folder of DICOM slices, or a NIfTI, NRRD, MHA, zip or tar file. It starts
# with the first test series of the run. *Writes* a label map, surfaces, a picture and a record to
# a folder for each scan in `output`, by default the run's `segmentation`.
#
# The package ships the trained network. The scan stays on this machine. For research, not for
# diagnosis or treatment.

# %% tags=["parameters"]
profile = "newest"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
scan = ""
output = ""

# %%
from IPython.display import Image

from bonelib.segment import workbench
from bonelib.workflow.runs import open_run

# %% [markdown]
# ## Choose a scan and segment it
# Type or paste a path, or click *Browse*; then click *Segment*. Bone then appears in green
# over the scan, and everything below is updated.

# %% tags=["nbval-ignore-output"]
run = open_run(profile, dataset, data_dir, results_dir, overrides)
print(run.banner())

# %% tags=["nbval-ignore-output"]
example = [case for case in run.cases() if case.split == "test"][0]
bench = workbench.Workbench(scan or example.scan_path, output or run.results.segmentation)
bench.controls

# %% [markdown]
# The next cell segments the first scan, as the button does.

# %% tags=["nbval-ignore-output"]
record = bench.segment()

# %% [markdown]
# ## Turn the surfaces
# Drag to turn, scroll to zoom. The boxes show and hide single bones.

# %% tags=["nbval-ignore-output"]
bench.surface

# %% [markdown]
# ## Measures

# %% tags=["nbval-ignore-output"]
bench.measures

# %% [markdown]
# ## Download the files
# The label map and the DICOM SEG open in 3D Slicer. Surfaces are in mm in patient coordinates
# (LPS). A name without a link lies outside the folder that JupyterLab serves.

# %% tags=["nbval-ignore-output"]
bench.files

# %% [markdown]
# `preview.png` of the first scan:

# %% tags=["nbval-ignore-output"]
Image(bench.folder.preview.read_bytes(), width=900)

# %% [markdown]
# **Found:** a scan becomes a label map on its own grid and closed surfaces. The model card in
# `bonelib/models/weights` says how accurate they are.
