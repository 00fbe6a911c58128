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
from bonelib.figures.niivue import ScanViewer, view_surfaces
from bonelib.paths import SegmentationFolder

REDRAW_SECONDS = 0.1  # between two updates of the progress bar
ERROR_COLOUR, NOTE_COLOUR = "#9c3d00", "#444444"
# JupyterLab removes the colour and the line of links.
LINK = '<a href="{}" download style="color: #0072B2; text-decoration: underline">{}</a>'


class Workbench:
    """Choose a scan, look at it, segment it, see and download the result.

    The widgets are `controls`, which shows the scan and then the label map over it, and
    `surface`, `measures` and `files`, which are empty until a scan is segmented.
    """

    def __init__(self, scan: Path | str, output: Path | str, series: str | None = None):
        """Open a scan, as `scans.read_scan` does; results will go to the folder `output`."""
        self.folder = SegmentationFolder(Path(output))
        self.record = {}
        self.surface = ipywidgets.VBox()
        self.measures, self.files = ipywidgets.HTML(), ipywidgets.HTML()

        wide, row = {"width": "700px"}, {"align_items": "center"}
        self._path_field = ipywidgets.Text(
            description="path", continuous_update=False, layout=wide,
            placeholder="a folder of DICOM slices, or a NIfTI, NRRD, MHA, zip or tar file",
        )  # fmt: skip
        chooser = FileChooser(str(Path.cwd()), select_desc="Browse")
        self._series = ipywidgets.Text(
            value=series or "", description="series", continuous_update=False,
            placeholder="number or UID, of several",
        )  # fmt: skip
        self._bones = ipywidgets.Checkbox(value=True, description="single bones", indent=False)
        self._button = ipywidgets.Button(description="Segment", button_style="primary")
        self._bar = ipywidgets.IntProgress(max=1, layout={"display": "none"})
        self._stage, self._message = ipywidgets.HTML(), ipywidgets.HTML()
        self._viewer = ScanViewer()
        self._path_field.observe(lambda _: self._attempt(self._open_field), "value")
        self._series.observe(lambda _: self._attempt(self._open_field), "value")
        self._button.on_click(lambda _: self._attempt(self.segment))
        chooser.register_callback(self._take_choice)
        self.controls = ipywidgets.VBox(
            [
                ipywidgets.HBox([self._path_field, chooser]),
                ipywidgets.HBox([self._series, self._bones], layout=row),
                ipywidgets.HBox([self._button, self._bar, self._stage], layout=row),
                self._message,
                self._viewer,
            ]
        )
        self.open(scan)

    def open(self, path: Path | str) -> None:
        """Read another scan and show it; raises InputError as `scans.read_scan` does."""
        series = self._series.value.strip() or None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InputWarning)
            scan = scans.read_scan(path, series)
        self._path, self._series_read, self._scan = Path(path), series, scan
        self._path_field.value = str(path)
        self._show_result({})
        self._viewer.show(scan)
        notes = [str(item.message) for item in caught if item.category is InputWarning]
        self._say("<br>".join(map(html.escape, notes)), NOTE_COLOUR)

    def segment(self) -> dict:
        """Segment the scan that the fields name, show the result and return its record.

        Raises InputError as `segment.segment` does.
        """
        self._open_field()
        self._show_result({})
        self._button.disabled, self._drawn = True, 0.0
        self._bar.layout.display = None
        try:
            record = segmentation.segment(
                self._path, self.folder.root, series=self._series_read, bones=self._bones.value,
                overwrite=True, progress=self._progress,
            )  # fmt: skip
        finally:
            self._button.disabled = False
            self._bar.layout.display = "none"
            self._stage.value = ""
        mask = scans.read_volume(self.folder.label_map)
        self._viewer.show(self._scan, labels.on_grid(mask, self._scan))
        self._show_result(record)
        return record

    def _show_result(self, record: dict) -> None:
        """Show what the files of a record hold; an empty record clears the widgets."""
        self.record = record
        self.surface.children, self.measures.value, self.files.value = (), "", ""
        if not record:
            self._stage.value = ""
            return
        made = [self.folder.root / name for name in record["files"]]
        bones = [file for file in made if file.parent == self.folder.bone_surfaces]
        shown = bones or [file for file in made if file == self.folder.surface]
        surfaces = {file.stem.replace("_", " "): trimesh.load_mesh(file) for file in shown}
        self.surface.children = (view_surfaces(surfaces),)
        self.measures.value = _html_table(measures(record))
        self.files.value = _file_table([*made, self.folder.record], self.folder.root)
        self._say("<br>".join(map(html.escape, record["notes"])), NOTE_COLOUR)
        seconds = sum(record["seconds"].values())
        self._stage.value = f"done in {seconds:.0f} s; scroll down for surfaces and files"

    def _attempt(self, action: Callable) -> None:
        """Do what a control asks for; say in one line what went wrong."""
        self._say("", NOTE_COLOUR)
        try:
            action()
        except InputError as error:
            self._say(html.escape(str(error)), ERROR_COLOUR)
        except KeyboardInterrupt:
            self._say("stopped", ERROR_COLOUR)
        except Exception as error:  # a widget's traceback would go to the log
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

    def _open_field(self) -> None:
        """Open the path and series that the fields hold, unless they are open already."""
        path, series = Path(self._path_field.value.strip()), self._series.value.strip() or None
        if (path, series) != (self._path, self._series_read):
            self.open(path)

    def _take_choice(self, chooser: FileChooser) -> None:
        path = Path(chooser.selected)
        # A file name chosen earlier stays when a folder is chosen.
        self._path_field.value = str(path if path.exists() else chooser.selected_path)


def measures(record: dict) -> pd.DataFrame:
    """Return volume, surface and mean HU of each structure of a record."""
    columns = {"volume (ml)": "volumes_ml", "surface (cm2)": "areas_cm2", "mean HU": "mean_hu"}
    frame = pd.DataFrame({title: pd.Series(record[key]) for title, key in columns.items()})
    frame = frame.reindex(list(record["volumes_ml"])).round(1)
    return frame.rename(index=lambda name: name.replace("_", " "))


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
        names.append(LINK.format(address, name) if address else name)
    sizes = [file.stat().st_size / 1e3 for file in files]
    table = _html_table(pd.DataFrame({"size (kB)": sizes}, index=names))
    return f"In {html.escape(os.path.relpath(root))}:{table}"


def _address(file: Path) -> str | None:
    """Return where the JupyterLab that runs this kernel serves a file, or None."""
    file = file.resolve()
    for server in list_running_servers():
        root = Path(server["root_dir"]).resolve()
        if str(server["pid"]) == os.environ.get("JPY_PARENT_PID") and file.is_relative_to(root):
            place = quote(file.relative_to(root).as_posix())
            return f"{server['base_url']}files/{place}?download=1"
    return None
