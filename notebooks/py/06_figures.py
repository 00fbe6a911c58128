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
# # 6 The figures
#
# **What do data, curves and segmentations look like?** (Figures 1 to 7)
#
# *Reads* prepared slices, histories, scores and predictions. *Writes* `figures/figure1` to
# `figure7` as `.png` and `.pdf`.

# %% tags=["parameters"]
profile = "smoke"
dataset = "phantom"
data_dir = ""
results_dir = ""
overrides = {}
models = ["fcn8", "fcn32", "pspnet", "unet", "segnet", "vgg_unet", "resnet50_unet"]

# %%
from bonelib import augment, figures, scoring, slices, tables
from bonelib.runs import open_run

# %%
run = open_run(profile, dataset, data_dir, results_dir, overrides)
table = slices.read_table(run.slices.root)
methods = run.settings.methods(models)
scores = scoring.read_scores(run.results, methods)
shown = figures.choose_model(models)
history = scoring.read_histories(run.results, models)[shown]
note = "Networks of Tables 1 and 3 are shown after the longer training."
note += tables.scheme_note(run.settings)
print(f"curves and examples of {shown}")

# %% [markdown]
# ## Figure 1: example slices

# %%
examples = [figures.read_example(run.slices, row) for row in figures.choose_levels(table).itertuples()]
figure, axes = figures.canvas(2, 2, 3.2, 2.5)
figures.figure1(examples, axes)
figures.save(figure, "figure1", run.results.figures)

# %% [markdown]
# ## Figure 2: augmentation

# %%
original = examples[0]
augmented = figures.augmented_examples(original, run.settings.seed, count=3)
figure, axes = figures.canvas(2, 2, 3.2, 2.7)
figures.figure2([original, *augmented], axes)
figures.save(figure, "figure2", run.results.figures)

# %% [markdown]
# ## Figures 3 to 5: the training

# %%
figure, axes = figures.canvas(1, 1, 4.5, 3.2)
figures.figure3(history, axes[0, 0], shown)
figures.save(figure, "figure3", run.results.figures)

# %%
figure, axes = figures.canvas(1, 1, 4.5, 3.2)
figures.figure4(history, axes[0, 0], shown)
figures.save(figure, "figure4", run.results.figures)

# %%
figure, axes = figures.canvas(1, 1, 4.5, 3.2)
figures.figure5(history, axes[0, 0], shown)
figures.save(figure, "figure5", run.results.figures)

# %% [markdown]
# ## Figure 6: one slice, every method

# %%
row = figures.choose_compared(scores)
example = figures.read_example(run.slices, row)
predictions = figures.read_predictions(run.results, methods, row)
panels = len(predictions) + 2
figure, axes = figures.canvas(-(-panels // 4), min(panels, 4), 2.4, 2.1)
figures.figure6(example, predictions, axes, run.settings.class_names)
figures.save(figure, "figure6", run.results.figures, note)

# %% [markdown]
# ## Figure 7: from best to worst

# %%
rows = list(figures.choose_quartiles(scores, shown).itertuples())
examples = [figures.read_example(run.slices, row) for row in rows]
predictions = [figures.read_predictions(run.results, [shown], row)[shown] for row in rows]
figure, axes = figures.canvas(len(rows), 2, 3.2, 2.2)
figures.figure7(examples, predictions, axes, shown, run.settings.class_names)
figures.save(figure, "figure7", run.results.figures, note)

# %% [markdown]
# **Found:** the seven figures, in the paper's order; which of the paper's findings they
# bear out is computed in notebook 8.
