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
# # 2 Preview the augmentation
#
# **What does a network see of one slice during training?** (section 4, Figure 2)
#
# *Reads* prepared slices. *Writes* nothing.

# %% tags=["parameters"]
profile = "newest"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}

# %%
from bonelib import slices
from bonelib.augment import policy
from bonelib.figures import pictures
from bonelib.workflow.runs import open_run

# %% tags=["nbval-ignore-output"]
run = open_run(profile, dataset, data_dir, results_dir, overrides)
print(run.banner())

# %%
table = slices.read_table(run.slices.root)
row = pictures.choose_levels(table).iloc[0]
example = pictures.read_example(run.slices, row)

# %% [markdown]
# ## Each operation by itself
# Label maps move with the image (nearest neighbour); changes of grey values leave them alone.

# %%
image, labels, seed = example.image, example.labels, run.settings.seed
alone = {
    name.replace("_", " "): policy.apply_operation(operation.augmenter, image, labels, seed)
    for name, operation in policy.operations(len(image)).items()
}
figure = pictures.draw_gallery(alone, columns=5)

# %% [markdown]
# ## The policy
# Flips, crops and affine transformations, each with its own probability, and none to five of
# the other operations, all in random order. A draw depends only on the seed, the epoch and the
# sample's number.

# %%
figure = pictures.draw_gallery(
    {
        f"draw {number}": policy.augment_slice(image, labels, [seed, number])
        for number in range(1, 13)
    }
)

# %% [markdown]
# **Found:** label maps stay aligned with their images and keep their values in every operation.
