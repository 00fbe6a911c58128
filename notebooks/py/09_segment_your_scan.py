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
# **Where is the bone in my own CT, and what does it look like in space?** (sections 1 and 6)
#
# *Reads* any CT series: a folder of DICOM slices, or one NIfTI, NRRD, MHA, zip or tar; the first
# test series of the run until you choose another. *Writes* a label map, surfaces, a picture and
# a record to `output`, the run's `segmentation` where it is empty.
#
# The network is the one that the package ships, trained already. It is research software: nothing
# here is for diagnosis or treatment. The scan stays on this machine.

# %% tags=["parameters"]
from IPython.display import Image

from bonelib.workflow.runs import open_run
from bonelib.segment import workbench

profile = "smoke"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
scan = ""
output = ""

# %%

# %% [markdown]
# ## Choose a scan and look at it
# *Choose a scan* opens another one, in place of the example. Move the sliders to scroll; `window`
# says which grey a HU gets.

# %% tags=["nbval-ignore-output"]
run = open_run(profile, dataset, data_dir, results_dir, overrides)
example = [case for case in run.cases() if case.split == "test"][0]
bench = workbench.Workbench(scan or example.scan_path, output or run.results.segmentation)
bench.controls

# %% [markdown]
# ## Segment it
# The next cell does what the button *Segment* does. After you have chosen another scan, or other
# options, press the button: everything below follows.

# %% tags=["nbval-ignore-output"]
record = bench.segment()

# %% [markdown]
# ## Scroll through the result
# Bone is green, the patient's outline orange. Three planes meet where the yellow lines cross.

# %% tags=["nbval-ignore-output"]
bench.planes

# %% [markdown]
# ## Turn the surface

# %% tags=["nbval-ignore-output"]
bench.surface

# %% [markdown]
# ## Measures

# %% tags=["nbval-ignore-output"]
bench.measures

# %% [markdown]
# ## Files to take away
# Click to download. The label map and the DICOM SEG open in 3D Slicer, surfaces are in mm and in
# patient coordinates (LPS). Names without a link lie outside the folder that JupyterLab serves.

# %% tags=["nbval-ignore-output"]
bench.files

# %% [markdown]
# The picture that lies beside them, of the scan that was segmented first:

# %% tags=["nbval-ignore-output"]
Image(bench.folder.preview.read_bytes(), width=900)

# %% [markdown]
# **Found:** one scan in, and out come a label map on its own grid and a closed surface to print,
# plan on or load elsewhere; how far to trust them, the model card in `bonelib/models/weights` says.
