"""The buttons of notebook 09 as an application in the browser: make app."""

from IPython.display import display
from ipywidgets import HTML

from bonelib.segment.workbench import Workbench
from bonelib.settings import RESEARCH_ONLY

bench = Workbench(None, "../results/segmentation")
title = (
    "<h1>A bone model of your CT</h1>Choose a scan, then click Segment. It stays on this machine."
)
display(HTML(f"{title}<br><b>{RESEARCH_ONLY}</b>"), bench.controls)
display(bench.surface, bench.measures, bench.files)
