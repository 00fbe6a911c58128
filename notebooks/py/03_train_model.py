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
# # 3 Train one network
#
# **How well does this network learn the classes, epoch by epoch?** (section 5.1)
#
# *Reads* prepared slices. *Writes* `models/<model>/`: the best weights by validation mean
# IoU, `history.csv`, TensorBoard logs. A stopped training continues after its last finished
# epoch.

# %% tags=["parameters"]
profile = "newest"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
slices_dir = ""
model = "unet"

# %% tags=["nbval-ignore-output"]
from bonelib import figures, models, published, training
from bonelib.figures import paper
from bonelib.workflow.runs import open_run

# %% [markdown]
# ## The network
# It has the layers of the library that the paper used.

# %% tags=["nbval-ignore-output"]
run = open_run(profile, dataset, data_dir, results_dir, overrides, slices_dir)
print(run.banner())

# %%
network = models.build_model(model, run.settings.image_size)
print(
    f"{published.METHOD_NAMES[model]}: {network.count_params():,} parameters, "
    f"{models.trainable_parameters(network):,} trainable"
)

# %% tags=["nbval-ignore-output"]
network.summary(line_length=100)

# %% [markdown]
# ## The training
# Categorical cross-entropy, Adadelta. After each epoch the whole validation set is scored on
# the input grid.

# %% tags=["nbval-ignore-output"]
history = training.train(model, run.slices, run.results, run.settings)

# %% [markdown]
# ## The curves

# %%
figure, axes = figures.canvas(1, 3, 60)
paper.figure3(history, axes[0, 0], model)
paper.figure4(history, axes[0, 1], model)
paper.figure5(history, axes[0, 2], model)

# %% tags=["nbval-ignore-output"]
history.round(3)

# %% [markdown]
# **Found:** the evaluation uses the epoch with the best validation mean IoU, which is

# %% tags=["nbval-ignore-output"]
print(history["epoch"][history["val_mean_iou"].idxmax()])
