"""A scan chosen by buttons -> its segmentation, to look at and to download, in a browser."""

import html
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import ipywidgets
import pandas as pd
import trimesh
from ipyfilechooser import FileChooser
from jupyter_server.serverapp import list_running_servers

from bonelib import labels, provenance, scans
from bonelib import segment as segmentation
from bonelib.errors import InputError, InputWarning
from bonelib.figures.niivue import ScanViewer, view_surfaces
from bonelib.paths import SegmentationFolder

ERROR_COLOUR, NOTE_COLOUR = "#9c3d00", "#444444"
# JupyterLab removes the colour and the line of links.
LINK = '<a href="{}" download style="color: #0072B2; text-decoration: underline">{}</a>'


class Stopped(Exception):
    """The button Stop was clicked."""


class Workbench:
    """Choose a scan, look at it, segment it, see and download the result.

    The widgets are `controls`, which shows the scan and then the label map over it, and
    `surface`, `measures` and `files`, which are empty until a scan is segmented.
    """

    def __init__(self, scan: Path | str | None, output: Path | str, series: str | None = None):
        """Open a scan, as `scans.read_scan` does; each scan gets a folder in `output`."""
        self._output, self._path, self._series_read = Path(output), None, None
        self._is_busy = self._is_stopping = False
        self.record = {}
        self.surface, self.measures = ipywidgets.VBox(), ipywidgets.Output()
        self.files = ipywidgets.HTML()

        wide, row = {"width": "700px"}, {"align_items": "center"}
        self._path_field = ipywidgets.Text(
            description="path", continuous_update=False, layout=wide,
            placeholder="a folder of DICOM slices, or a NIfTI, NRRD, MHA, zip or tar file",
        )  # fmt: skip
        chooser = FileChooser(str(Path.home()), select_desc="Browse")
        self._series = ipywidgets.Text(
            value=series or "", description="series", continuous_update=False,
            placeholder="number or UID, of several",
        )  # fmt: skip
        self._bones = ipywidgets.Checkbox(value=True, description="single bones", indent=False)
        self._button = ipywidgets.Button(description="Segment", button_style="primary")
        self._stop = ipywidgets.Button(description="Stop", layout={"display": "none"})
        self._bar = ipywidgets.IntProgress(layout={"display": "none"})
        self._stage, self._message = ipywidgets.HTML(), ipywidgets.HTML()
        self._viewer = ScanViewer()
        self._path_field.observe(lambda _: self._attempt(self._open_field), "value")
        self._series.observe(lambda _: self._attempt(self._open_field), "value")
        # In a thread, since a busy kernel hears no click on Stop.
        self._button.on_click(lambda _: Thread(target=self._attempt, args=[self.segment]).start())
        self._stop.on_click(lambda _: setattr(self, "_is_stopping", True))
        chooser.register_callback(self._take_choice)
        self.controls = ipywidgets.VBox(
            [
                ipywidgets.HBox([self._path_field, chooser]),
                ipywidgets.HBox([self._series, self._bones], layout=row),
                ipywidgets.HBox([self._button, self._stop, self._bar, self._stage], layout=row),
                self._message,
                self._viewer,
            ]
        )
        if scan is not None:
            self.open(scan)

    def open(self, path: Path | str) -> None:
        """Read another scan and show it; raises InputError as `scans.read_scan` does."""
        series = self._series.value.strip() or None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", InputWarning)
            scan = scans.read_scan(path, series)
        self._path, self._series_read, self._scan = Path(path), series, scan
        name = scans.volume_stem(self._path) or self._path.stem
        number = provenance.text_hash(self._path.resolve(), series)[:6]
        self.folder = SegmentationFolder(self._output / f"{name}-{number}")
        self._path_field.value = str(path)
        self._clear()
        self._viewer.show(scan)
        self._say([str(item.message) for item in caught if item.category is InputWarning])

    def segment(self) -> dict:
        """Segment the scan that the fields name, show the result and return its record.

        Raises InputError as `segment.segment` does, and Stopped.
        """
        self._open_field()
        self._clear()
        self._set_busy(True)
        try:
            record = segmentation.segment(
                self._path, self.folder.root, series=self._series_read, bones=self._bones.value,
                overwrite=True, progress=self._progress,
            )  # fmt: skip
        finally:
            self._set_busy(False)
        mask = scans.read_volume(self.folder.label_map)
        self._viewer.show(self._scan, labels.on_grid(mask, self._scan))
        self._show_result(record)
        return record

    def _set_busy(self, is_busy: bool) -> None:
        self._is_busy, self._is_stopping = is_busy, False
        for control in (self._button, self._path_field, self._series, self._bones):
            control.disabled = is_busy
        for control in (self._stop, self._bar):
            control.layout.display = None if is_busy else "none"
        self._stage.value = ""

    def _clear(self) -> None:
        self.record, self.surface.children, self.measures.outputs = {}, (), ()
        self.files.value = self._stage.value = ""

    def _show_result(self, record: dict) -> None:
        """Show the content of a record and of its files."""
        self.record = record
        made = [self.folder.root / name for name in record["files"]]
        bones = [file for file in made if file.parent == self.folder.bone_surfaces]
        shown = bones or [file for file in made if file == self.folder.surface]
        surfaces = {file.stem.replace("_", " "): trimesh.load_mesh(file) for file in shown}
        self.surface.children = (view_surfaces(surfaces),)
        table = measures(record).style.format(precision=1, na_rep="", thousands=",")
        self.measures.append_display_data(table)
        self.files.value = _links([*made, self.folder.record], self.folder.root)
        self._say(record["notes"])
        seconds = sum(record["seconds"].values())
        self._stage.value = f"done in {seconds:.0f} s; scroll down for surfaces and files"

    def _attempt(self, action: Callable) -> None:
        """Do what a control asks for; say in one line what went wrong."""
        self._say([])
        try:
            action()
        except InputError as error:
            self._say([str(error)], ERROR_COLOUR)
        except (Stopped, KeyboardInterrupt):
            self._say(["stopped; no result was written"], ERROR_COLOUR)
        except Exception as error:  # a widget's traceback would go to the log
            self._say([f"{type(error).__name__}: {error}".splitlines()[0]], ERROR_COLOUR)

    def _say(self, lines: list[str], colour: str = NOTE_COLOUR) -> None:
        text = "<br>".join(map(html.escape, lines))
        self._message.value = f'<span style="color: {colour}">{text}</span>'

    def _progress(self, stage: str, done: int, total: int) -> None:
        if self._is_stopping:
            raise Stopped
        self._bar.max, self._bar.value = max(total, 1), done
        self._stage.value = f"{stage}: {done} of {total}"

    def _open_field(self) -> None:
        """Open the path and series that the fields hold, unless they are open already."""
        text, series = self._path_field.value.strip(), self._series.value.strip() or None
        if not text:
            raise InputError("no scan is chosen: paste its path, or click Browse")
        path = Path(text).expanduser()
        if (path, series) != (self._path, self._series_read):
            self.open(path)

    def _take_choice(self, chooser: FileChooser) -> None:
        if self._is_busy:
            return
        path = Path(chooser.selected)
        # A file name chosen earlier stays when a folder is chosen.
        self._path_field.value = str(path if path.exists() else chooser.selected_path)


def measures(record: dict) -> pd.DataFrame:
    """Return volume, surface and mean HU of each structure of a record."""
    columns = {"volume (ml)": "volumes_ml", "surface (cm2)": "areas_cm2", "mean HU": "mean_hu"}
    frame = pd.DataFrame({title: pd.Series(record[key]) for title, key in columns.items()})
    return frame.loc[list(record["volumes_ml"])].rename(index=lambda name: name.replace("_", " "))


def _links(files: list[Path], root: Path) -> str:
    """Return a list of files, with links where the JupyterLab that runs this kernel serves them."""
    server = next(
        (one for one in list_running_servers() if str(one["pid"]) == os.getenv("JPY_PARENT_PID")),
        {"root_dir": os.devnull},
    )
    lines = [f"In {html.escape(os.path.relpath(root))}:"]
    for file in files:
        name = html.escape(file.relative_to(root).as_posix())
        place = os.path.relpath(os.path.realpath(file), os.path.realpath(server["root_dir"]))
        if not place.startswith(os.pardir):
            name = LINK.format(f"{server['base_url']}files/{quote(place)}?download=1", name)
        lines.append(f"{name} ({file.stat().st_size / 1e3:,.0f} kB)")
    return "<br>".join(lines)
