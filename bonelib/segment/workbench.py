"""A scan chosen by buttons -> its segmentation, to look at and to download, in JupyterLab."""

import html
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import ipywidgets
import pandas as pd
import trimesh
from ipyfilechooser import FileChooser
from jupyter_server.serverapp import list_running_servers

from bonelib import labels, scans
from bonelib import segment as segmentation
from bonelib.errors import InputError, InputWarning
from bonelib.paths import SegmentationFolder
from bonelib.segment import viewer
from bonelib.segment.planes import PlaneBrowser

REDRAW_SECONDS = 0.1  # between two states of the progress bar
# JupyterLab takes the colour and the line off links.
LINK_STYLE = "color: #0072B2; text-decoration: underline"
ERROR_COLOUR, NOTE_COLOUR = "#9c3d00", "#444444"


class Workbench:
    """Choose a scan, look at it, segment it; one scan at a time.

    `controls` is the widget to do so with. `planes`, `surface`, `measures` and `files` are
    widgets that show what the last segmentation made, and are empty until then.
    """

    def __init__(self, scan: Path | str, output: Path | str, series: str | None = None):
        """Open a scan, as `scans.read_scan` does; results will go to the folder `output`."""
        self.folder = SegmentationFolder(Path(output))
        self.record = {}
        self.planes, self.surface = PlaneBrowser(), ipywidgets.HTML()
        self.measures, self.files = ipywidgets.HTML(), ipywidgets.HTML()

        choose = ipywidgets.Button(description="Choose a scan", icon="folder-open")
        self._chooser = ipywidgets.VBox([choose])
        self._series = ipywidgets.Text(
            value=series or "", description="series", continuous_update=False,
            placeholder="number or UID, of several",
        )  # fmt: skip
        self._bones = ipywidgets.Checkbox(
            value=True, description="single bones", indent=False, layout={"width": "130px"}
        )
        self._button = ipywidgets.Button(description="Segment", button_style="primary")
        self._bar = ipywidgets.IntProgress(max=1, layout={"display": "none"})
        self._stage = ipywidgets.HTML()
        self._message = ipywidgets.HTML()
        self._slices = PlaneBrowser()
        choose.on_click(lambda _: self._show_chooser())
        self._button.on_click(lambda _: self._attempt(self.segment))
        self._series.observe(lambda _: self._attempt(self.open, self._path), "value")
        row = {"align_items": "center"}
        self.controls = ipywidgets.VBox(
            [
                self._chooser,
                ipywidgets.HBox([self._series, self._bones], layout=row),
                ipywidgets.HBox([self._button, self._bar, self._stage], layout=row),
                self._message,
                self._slices,
            ]
        )
        self.open(scan)

    def open(self, path: Path | str) -> None:
        """Read another scan and show its slices; raises InputError as `scans.read_scan` does."""
        series = self._series.value.strip() or None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InputWarning)
            scan = scans.read_scan(path, series)
        self._path, self._series_read, self._scan = Path(path), series, scan
        self.record = {}
        for part in (self.surface, self.measures, self.files, self._stage):
            part.value = ""
        self.planes.layout.display = "none"
        self._slices.show(scan)
        notes = [str(item.message) for item in caught if item.category is InputWarning]
        self._say("<br>".join(map(html.escape, notes)), NOTE_COLOUR)

    def segment(self) -> dict:
        """Segment the open scan with the options chosen, show what was made, return its record.

        Raises InputError as `segmentation.segment` does.
        """
        self._button.disabled, self._drawn = True, 0.0
        self._bar.layout.display = None
        try:
            self.record = segmentation.segment(
                self._path, self.folder.root, series=self._series_read, bones=self._bones.value,
                overwrite=True, progress=self._progress,
            )  # fmt: skip
        finally:
            self._button.disabled = False
            self._bar.layout.display = "none"
            self._stage.value = ""
        self._show_result()
        return self.record

    def _show_result(self) -> None:
        mask = scans.read_volume(self.folder.label_map)
        self.planes.show(self._scan, labels.on_grid(mask, self._scan))
        made = [self.folder.root / name for name in self.record["files"]]
        self.surface.value = self._frame(made)
        self.measures.value = _html_table(measures(self.record))
        self.files.value = _file_table([*made, self.folder.record], self.folder.root)
        self._say("<br>".join(map(html.escape, self.record["notes"])), NOTE_COLOUR)
        seconds = sum(self.record["seconds"].values())
        self._stage.value = f"done in {seconds:.0f} s: the results are below"

    def _attempt(self, action: Callable, *arguments) -> None:
        """Do what a button asks for, and say in one line what went wrong."""
        self._say("", NOTE_COLOUR)
        try:
            action(*arguments)
        except InputError as error:
            self._say(html.escape(str(error)), ERROR_COLOUR)
        except KeyboardInterrupt:
            self._say("stopped", ERROR_COLOUR)
        except Exception as error:  # of a button, its traceback would go where nobody looks
            text = f"{type(error).__name__}: {error}".splitlines()[0]
            self._say(html.escape(text), ERROR_COLOUR)

    def _say(self, text: str, colour: str) -> None:
        self._message.value = f'<span style="color: {colour}">{text}</span>'

    def _progress(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._drawn < REDRAW_SECONDS and done < total:
            return
        self._drawn = now
        self._bar.max, self._bar.value = max(total, 1), done
        self._stage.value = f"{stage}: {done} of {total}"

    def _show_chooser(self) -> None:
        # Made when it is asked for: it lists this machine's folders, which a stored
        # notebook has no business with.
        chooser = FileChooser(str(Path.cwd()), title="A folder of DICOM slices, or one file")
        chooser.register_callback(lambda chosen: self._attempt(self.open, _chosen_path(chosen)))
        chooser._show_dialog()  # as its own button does; there is no public way
        self._chooser.children = [chooser]

    def _frame(self, files: list[Path]) -> str:
        """Return the page that turns the single bones among `files`, or else all bone."""
        bones = [file for file in files if file.parent == self.folder.bone_surfaces]
        shown = bones or [file for file in files if file == self.folder.surface]
        surfaces = {file.stem.replace("_", " "): trimesh.load_mesh(file) for file in shown}
        return viewer.surface_frame(surfaces, "Bone model") if surfaces else "No bone was found."


def measures(record: dict) -> pd.DataFrame:
    """Return volume, surface and mean HU of each part that a record tells of."""
    columns = {"volume (ml)": "volumes_ml", "surface (cm2)": "areas_cm2", "mean HU": "mean_hu"}
    frame = pd.DataFrame({title: pd.Series(record[key]) for title, key in columns.items()})
    frame = frame.reindex(list(record["volumes_ml"])).round(1)
    return frame.rename(index=lambda name: name.replace("_", " "))


def _chosen_path(chooser: FileChooser) -> Path:
    """Return what is chosen; the name of a file chosen before sticks to a folder chosen now."""
    path = Path(chooser.selected)
    return path if path.exists() else Path(chooser.selected_path)


def _html_table(frame: pd.DataFrame) -> str:
    styles = [
        {"selector": "th, td", "props": "text-align: right; padding: 0 12px; line-height: 1.6"},
        {"selector": "th.row_heading", "props": "text-align: left; font-weight: normal"},
    ]
    table = frame.style.format(precision=1, na_rep="", thousands=",")
    return table.set_table_styles(styles).set_uuid("workbench").to_html()


def _file_table(files: list[Path], root: Path) -> str:
    """Return a table of files, with links where JupyterLab serves them."""
    names = []
    for file in files:
        name, address = html.escape(file.relative_to(root).as_posix()), _address(file)
        link = f'<a href="{address}" download style="{LINK_STYLE}">{name}</a>'
        names.append(link if address else name)
    sizes = [file.stat().st_size / 1e3 for file in files]
    table = _html_table(pd.DataFrame({"size (kB)": sizes}, index=names))
    return f"In {html.escape(os.path.relpath(root))}:{table}"


def _address(file: Path) -> str | None:
    """Return where the JupyterLab that runs this kernel serves a file, or None if it does not."""
    file = file.resolve()
    for server in list_running_servers():
        root = Path(server["root_dir"]).resolve()
        if str(server["pid"]) == os.environ.get("JPY_PARENT_PID") and file.is_relative_to(root):
            place = quote(file.relative_to(root).as_posix())
            return f"{server['base_url']}files/{place}?download=1"
    return None
