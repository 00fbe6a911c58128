"""Each row of the tables of bad input in data/README.md, and files with changed bytes."""

import gzip
import os
import pickle
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tarfile
import warnings
import zipfile
import zlib

import numpy as np
import pytest
import SimpleITK
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bonelib import paths, preparation, scans, slices
from bonelib.__main__ import main
from bonelib.datasets import find_cases
from bonelib.errors import InputError
from bonelib.paths import SliceFolder
from bonelib.scans import read_scan
from bonelib.settings import get_settings

from .mask_files import write_pictures, write_structure_set

SMOKE = get_settings("smoke")
TILTED = [1, 0, 0, 0, 0.939692621, -0.342020143]  # by 20 degrees


class Desk:
    """What a case needs to lay out its input."""

    def __init__(self, folder, write_series, make_image, trunk_hu):
        self.folder, self.write_series, self.make_image = folder, write_series, make_image
        self.trunk_hu = trunk_hu
        self.spacing_mm = (5, 4, 4)

    def series(self, image_hu=None, change=None, name="ct"):
        image_hu = self.trunk_hu if image_hu is None else image_hu
        return self.write_series(self.folder / name, image_hu, self.spacing_mm, change=change)

    def volume(self, array, name="ct.nii.gz", **geometry):
        path = self.folder / name
        image = self.make_image(array, **({"spacing_mm": self.spacing_mm} | geometry))
        SimpleITK.WriteImage(image, str(path))
        return path

    def mask(self, number=1, **geometry):
        return self.volume((self.trunk_hu > 500) * np.uint8(number), "mask.nii.gz", **geometry)

    def write(self, name, content):
        (self.folder / name).write_bytes(content)
        return self.folder / name

    def series_and(self, stray, content):
        """A series with one more file, or one file changed."""
        folder = self.series()
        (folder / stray).write_bytes(content(folder / "IM003"))
        return [folder]

    def pictures(self, bone_hu):
        mask = write_pictures(self.folder / "mask", (bone_hu > 500).astype(np.uint8))
        return [self.series(), "--mask", mask]


@pytest.fixture
def desk(tmp_path, write_series, make_image, trunk_hu):
    return Desk(tmp_path, write_series, make_image, trunk_hu)


def setting(**attributes):
    def change(file, index):
        for name, value in attributes.items():
            setattr(file, name, value)

    return change


def positions(*heights_mm):
    def change(file, index):
        file.ImagePositionPatient = [-30, -40, heights_mm[index]]

    return change


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])
    return path


def two_series(desk):
    desk.series(change=setting(SeriesNumber=2))
    desk.series(desk.trunk_hu[:3], setting(SeriesNumber=3), name="ct2")
    return [desk.folder]


def oblique(desk):
    image = desk.make_image(desk.trunk_hu, desk.spacing_mm)
    turn = np.radians(30)
    direction = [np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1]
    image.SetDirection(direction)
    SimpleITK.WriteImage(image, str(desk.folder / "ct.nrrd"))
    return [desk.folder / "ct.nrrd"]


def with_value(value):
    def make(desk):
        image_hu = desk.trunk_hu.astype(np.float32)
        image_hu[0, 0, 0] = value
        return [desk.volume(image_hu)]

    return make


def without_field(desk):
    path = desk.volume(desk.trunk_hu, "ct.mha")
    return [desk.write("ct.mha", re.sub(rb"\nOffset = [^\n]*", b"", path.read_bytes()))]


def contradiction(desk):
    path = desk.volume(desk.trunk_hu, "ct.nii")
    content = bytearray(path.read_bytes())
    content[276:280] = np.float32(1234).tobytes()  # qoffset_z
    return [desk.write("ct.nii", content)]


def large_volume(desk):
    path = desk.volume(desk.trunk_hu, "ct.mha")
    content = re.sub(rb"DimSize = [^\n]*", b"DimSize = 40000 40000 40000", path.read_bytes())
    content = re.sub(rb"ElementSpacing = [^\n]*", b"ElementSpacing = .05 .05 .05", content)
    return [desk.write("ct.mha", content)]


def escaping_archive(desk):
    with tarfile.open(desk.folder / "scan.tar", "w") as packed:
        packed.add(desk.series() / "IM003", "../../escaped")
    return [desk.folder / "scan.tar"]


def archive_bomb(desk):
    with zipfile.ZipFile(desk.folder / "scan.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("0.dcm", bytes(2**24))
    return [desk.folder / "scan.zip"]


def gzip_bomb(desk):
    content = desk.volume(desk.trunk_hu, "ct.nii").read_bytes()
    return [desk.write("ct.nii.gz", gzip.compress(content + bytes(2**26), 1))]


def picture_bomb(desk):
    arguments = desk.pictures(desk.trunk_hu)
    page = min(arguments[-1].iterdir())
    content = bytearray(page.read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)  # the header alone promises gigabytes
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    page.write_bytes(content)
    return arguments


def turned_mask(desk):
    mask = desk.make_image((desk.trunk_hu > 500).astype(np.uint8), desk.spacing_mm)
    smaller = SimpleITK.DICOMOrient(mask, "RAS")[2:40, 3:60, 1:]
    SimpleITK.WriteImage(smaller, str(desk.folder / "mask.nrrd"))
    return [desk.series(), "--mask", desk.folder / "mask.nrrd"]


def shifted_mask(millimetres):
    def make(desk):
        mask = desk.mask(origin=(-30.0 + millimetres, -40.0, 100.0))
        return [desk.volume(desk.trunk_hu), "--mask", mask]

    return make


def structure_set(*names):
    def make(desk):
        folder = desk.series(change=setting(FrameOfReferenceUID="1.2.3"))
        square = np.array([[0, 0, 100], [40, 0, 100], [40, 40, 100], [0, 40, 100]], float)
        path = desk.folder / "mask.dcm"
        write_structure_set(path, {name: [square] for name in names}, change=in_other_space)
        return [folder, "--mask", path]

    def in_other_space(dataset):
        dataset.FrameOfReferenceUID = "1.2.4" if names == ("bone",) else "1.2.3"

    return make


def mask_of(number, *bones):
    def make(desk):
        masked = (desk.trunk_hu > 500) * np.uint8(3)
        masked[:, 12, 12:20] = number
        lines = "".join(f"{bone},hip\n" for bone in bones)
        names = desk.write("names.csv", f"id,name\n{lines}".encode())
        mask = desk.volume(masked, "mask.nii.gz")
        return [desk.volume(desk.trunk_hu), "--mask", mask, "--bone-names", names]

    return make


# name in the table: what makes it, "refused" or "noted" or "read", what is said
CASES = {
    "an empty folder": (lambda desk: [desk.folder], "refused", "no files"),
    "a text file": (lambda d: [d.write("ct.txt", b"text")], "refused", "not a volume file"),
    "a path that is not there": (lambda d: [d.folder / "x"], "refused", "no such file or folder"),
    "pixel data cut short": (
        lambda d: d.series_and("IM003", lambda file: file.read_bytes()[:-200]), "noted",
        "1 damaged (IM003)",
    ),
    "a volume file cut short": (
        lambda d: [cut(d.volume(d.trunk_hu))], "refused", "damaged or incomplete",
    ),
    "slices of two patients": (
        lambda d: [d.series(change=lambda file, index: setattr(file, "PatientID", str(index % 2)))],
        "refused", "CT slices of 2 patients",
    ),
    "MR instead of CT": (
        lambda d: [d.series(change=setting(Modality="MR"))], "refused", "6 of modality MR",
    ),
    "a single slice": (lambda d: [d.series(d.trunk_hu[:1])], "refused", "holds one CT slice"),
    "two or more slices missing in a row": (
        lambda d: [d.series(change=positions(0, 5, 10, 15, 20, 40))], "refused",
        "3 slices are missing",
    ),
    "two different slices at one position": (
        lambda d: [d.series(np.arange(6)[:, None, None] + d.trunk_hu,
                            positions(0, 5, 10, 10, 15, 20))],
        "refused", "lie at the same position and differ",
    ),
    "a gantry's tilt that the positions do not show": (
        lambda d: [d.series(change=setting(GantryDetectorTilt=12))], "refused",
        "tilted by 12.0 degrees",
    ),
    "zero spacing": (
        lambda d: [d.series(change=setting(PixelSpacing=[0, 0]))], "refused",
        "a spacing of 0 x 0 x 5 mm makes no sense",
    ),
    "values that are no numbers": (with_value(np.nan), "refused", "not finite numbers"),
    "absurd HU": (with_value(3e6), "refused", "are not HU"),
    "grey values that are not HU": (
        lambda d: [d.volume((d.trunk_hu > 0) * np.uint8(200))], "refused", "are not HU",
    ),
    "a header that contradicts itself": (contradiction, "refused", "mm apart"),
    "a header that leaves open where the volume lies": (
        without_field, "refused", "has no 'Offset' in a known form",
    ),
    "a volume larger than the memory": (large_volume, "refused", "GiB of memory"),
    "an archive with paths out of its folder": (
        escaping_archive, "refused", "outside the destination",
    ),
    "an archive that is a decompression bomb": (archive_bomb, "refused", "decompression bomb"),
    "a volume that is a decompression bomb": (gzip_bomb, "refused", "damaged or incomplete"),
    "a picture that is a decompression bomb": (picture_bomb, "refused", "cannot be read as a PNG"),
    "a pickle in place of an array": (
        lambda d: [d.write("ct.nii.gz", pickle.dumps(np.zeros(3)))], "refused",
        "damaged or incomplete",
    ),
    "a mask elsewhere in space": (shifted_mask(900), "refused", "lie apart in space"),
    "a mask of which most lies outside of the scan": (
        shifted_mask(100), "refused", "lies outside of the scan",
    ),
    "a mask without any id that is bone": (mask_of(9, 25, 26), "refused", "no bone in it"),
    "pictures that are not one for each slice": (
        lambda d: d.pictures(d.trunk_hu[1:]), "refused", "5 pictures",
    ),
    "pictures in another order or direction": (
        lambda d: d.pictures(d.trunk_hu[:, :, ::-1]), "refused", "HU",
    ),
    "drawn structures of which none looks like bone": (
        structure_set("liver", "bladder"), "refused", "liver",
    ),
    "several series": (two_series, "noted", "series 2 (6 slices, 5.00 mm apart, axial) is read"),
    "other files beside the slices": (
        lambda d: d.series_and("notes.txt", lambda _: b"notes"), "noted", "left out: 1 not DICOM",
    ),
    "a slice missing here and there": (
        lambda d: [d.series(change=positions(0, 5, 10, 15, 20, 30))], "noted",
        "missing slices interpolated: 1",
    ),
    "slices of another size, spacing or direction": (
        lambda d: [d.series(change=lambda file, index: index or setattr(
            file, "PixelSpacing", [5, 4]))],
        "noted", "1 slice, IM003",
    ),
    "a mask of another frame of reference": (
        structure_set("bone"), "refused", "another frame of reference",
    ),
    "a mask that is dark in the scan": (shifted_mask(-60), "noted", "the scan is dark in the mask"),
    "a slice given twice": (
        lambda d: d.series_and("copy", lambda file: file.read_bytes()), "noted",
        "duplicate slices dropped: 1",
    ),
    "uneven distances": (
        lambda d: [d.series(change=positions(0, 5, 11, 15, 20, 25))], "noted", "are resampled to",
    ),
    "a tilted gantry": (
        lambda d: [d.series(change=setting(ImageOrientationPatient=TILTED))], "noted",
        "tilt of 20.0 degrees",
    ),
    "oblique slices": (oblique, "noted", "oblique by 30 degrees"),
    "values beyond 32767 HU": (with_value(45_000), "noted", "are cut to 32767"),
    "a mask with unknown ids": (mask_of(9, 3, 25), "noted", "ids 9 of a mask are not among"),
    "a mask of another shape, spacing or direction": (turned_mask, "read", "mask: id 1, bone"),
}  # fmt: skip


def run(arguments, capsys):
    code = main(["inspect", *map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused_or_noted_in_one_line(desk, capsys, monkeypatch, name):
    monkeypatch.setattr(scans, "HARMLESS_BYTES", 2**20)
    make, outcome, words = CASES[name]
    arguments = make(desk)
    kept = desk.folder / "kept.nii.gz"
    code, said, complaint = run([*arguments, "-o", kept], capsys)
    assert "Traceback" not in complaint
    if outcome == "refused":
        assert code == 2
        lines = complaint.splitlines()
        assert lines[-1].startswith("bonelib: ") and words in lines[-1]
        assert not any(line.startswith("bonelib: ") for line in lines[:-1])
        assert str(desk.folder) in lines[-1]
        assert not kept.exists() and not list(desk.folder.glob(".*kept*"))
    else:
        assert code == 0 and kept.exists()
        assert words in (complaint if outcome == "noted" else said)
        assert not complaint or all(line.startswith("note: ") for line in complaint.splitlines())


def rows_of_the_readme():
    text = (paths.DATA / "README.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (refused|noted|read) \|", text, re.MULTILINE)
    return dict(rows)


def test_the_table_in_the_readme_is_what_is_tested():
    tested = {name: outcome for name, (_, outcome, _) in CASES.items()}
    elsewhere = {"a folder that may not be read", "a full disk"}
    rows = rows_of_the_readme()
    assert {name: rows[name] for name in tested.keys() & rows.keys()} == tested
    assert set(rows) == set(tested) | elsewhere


# One bad series among others


@pytest.mark.parametrize("fault", ["no mask", "two masks"])
def test_a_series_without_one_mask_ends_no_other(write_dataset, tmp_path, fault):
    root = write_dataset()
    mask = root / "b" / "mask.nii.gz"
    mask.unlink() if fault == "no mask" else shutil.copyfile(mask, root / "b" / "bone.nii.gz")
    with pytest.raises(InputError, match="1 of 3 series cannot be used, .*b: needs one of files"):
        preparation.prepare(find_cases("folder", root, SMOKE), tmp_path / "prepared", SMOKE)
    assert SliceFolder(tmp_path / "prepared").series("c").exists()


def test_the_other_series_of_a_run_are_unharmed(write_dataset, tmp_path):
    root = write_dataset()
    cut(root / "b" / "ct.nii.gz")
    prepared = tmp_path / "prepared"
    with pytest.raises(InputError) as caught:
        preparation.prepare(find_cases("folder", root, SMOKE), prepared, SMOKE)
    message = str(caught.value)
    assert message.startswith("1 of 3 series cannot be used, the others are prepared; mend ")
    assert "\n" not in message and str(root / "b" / "ct.nii.gz") in message
    folder = SliceFolder(prepared)
    assert folder.series("a").exists() and folder.series("c").exists()
    assert not folder.series("b").exists() and not list(prepared.rglob("b_*"))
    assert not folder.description.exists()

    kept = folder.series("a").stat().st_mtime_ns
    shutil.copyfile(root / "a" / "ct.nii.gz", root / "b" / "ct.nii.gz")
    table = preparation.prepare(find_cases("folder", root, SMOKE), prepared, SMOKE)
    assert set(table["series"]) == {"a", "b", "c"}
    assert folder.series("a").stat().st_mtime_ns == kept


def test_notes_are_kept_with_the_slices(write_dataset, tmp_path):
    root = write_dataset()
    (root / "bone_names.csv").write_text("id,name\n3,hip\n")
    path = root / "a" / "mask.nii.gz"
    mask = SimpleITK.ReadImage(str(path))
    mask[12, 12, 0] = 77
    SimpleITK.WriteImage(mask, str(path))
    preparation.prepare(find_cases("folder", root, SMOKE), tmp_path / "prepared", SMOKE)
    notes = slices.read_notes(tmp_path / "prepared")
    assert notes.to_dict("records") == [
        {
            "series": "a",
            "note": "ids 77 of a mask are not among the bone names; they count as patient",
        }
    ]


# A folder without rights, a full disk: in a process that has no more rights than a user

WITHOUT_RIGHTS = """
import os, sys
from bonelib.__main__ import main
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
sys.exit(main(sys.argv[1:]))
"""


def test_a_folder_that_may_not_be_read(desk):
    folder = desk.series()
    folder.chmod(0)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RIGHTS, "inspect", str(desk.folder)],
        capture_output=True, text=True, cwd=paths.REPOSITORY,
    )  # fmt: skip
    folder.chmod(0o700)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1 and "check" in done.stderr


FILL = """
import sys
from pathlib import Path
from bonelib import preparation
from bonelib.datasets import find_cases
from bonelib.errors import InputError
from bonelib.settings import get_settings
smoke = get_settings("smoke")
disk = Path(sys.argv[2])
try:
    preparation.prepare(find_cases("folder", Path(sys.argv[1]), smoke), disk / "p", smoke)
except InputError as error:
    print(error)
    print(sorted({file.stem.split("_")[0] for file in disk.rglob("*.png")}))
    print(sorted(file.stem for file in disk.rglob("*.json")))
"""


def test_a_full_disk_leaves_nothing_half_written(write_dataset, tmp_path):
    """On a disk of 64 KiB, which a user may mount in a name space of one's own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=64k none {disk}"
    probe = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    has_unshare = shutil.which("unshare") is not None
    if not has_unshare or subprocess.run([*probe, mount], capture_output=True).returncode:
        pytest.skip("no disk of one's own can be mounted here")
    words = shlex.join((sys.executable, "-c", FILL, str(write_dataset()), str(disk)))
    done = subprocess.run(
        [*probe, f"{mount} && exec {words}"], capture_output=True, text=True, cwd=paths.REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(paths.REPOSITORY)},
    )  # fmt: skip
    said, pictured, recorded = done.stdout.splitlines()
    assert "No space left on device" in said and "free disk space" in said
    assert pictured == recorded != "['a', 'b', 'c']"


# Real files with bytes changed at random. What cannot be noticed is left out: a digit that
# becomes another digit in the text header of NRRD or MHA, which states it once.

HEADER_BYTES = {"dicom": 1500, "nii.gz": 400, "nii": 352, "mha": 400, "mhd": 400, "nrrd": 500}
VARIANTS = {"dicom": 80, "nii.gz": 50, "nii": 80, "mha": 35, "mhd": 20, "nrrd": 35}
NUMERIC = set(b"0123456789.+-eE ")

changes = st.lists(
    st.tuples(st.booleans(), st.integers(0, 2**31), st.integers(0, 255)), min_size=1, max_size=6
)
lengths = st.one_of(st.none(), st.none(), st.none(), st.floats(0, 0.999))


def corners_mm(scan):
    ends = [(0, size - 1) for size in scan.GetSize()]
    indices = np.stack(np.meshgrid(*ends), -1).reshape(-1, 3)
    return np.array([scan.TransformIndexToPhysicalPoint(index) for index in indices.tolist()])


@pytest.fixture
def intact(shared_data, tmp_path, write_series):
    """Return a function that writes a part of a real scan in a format: folder, what to read."""

    def write(kind):
        whole = SimpleITK.ReadImage(str(shared_data / "abdomen_nifti" / "ct.nii.gz"))[:40, :40, :5]
        if kind == "dicom":
            image_hu = np.maximum(SimpleITK.GetArrayFromImage(whole), -1024).astype(int)
            return (write_series(tmp_path / "ct", image_hu[:3], (3, 3, 3)),) * 2
        plain = SimpleITK.GetImageFromArray(SimpleITK.GetArrayFromImage(whole))
        plain.CopyInformation(whole)
        SimpleITK.WriteImage(plain, str(tmp_path / f"ct.{kind}"), useCompression=kind != "nii")
        return tmp_path, tmp_path / f"ct.{kind}"

    return write


@pytest.mark.parametrize("kind", VARIANTS)
def test_damage_is_refused_or_harmless(intact, kind):
    folder, source = intact(kind)
    files = sorted(folder.iterdir())
    contents = [file.read_bytes() for file in files]
    reference = read_scan(source)
    outcomes = {"told": 0, "read": 0}

    @settings(
        max_examples=VARIANTS[kind], deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, len(files) - 1), changes, lengths)
    def damage(number, edits, length):
        content = bytearray(contents[number])
        for in_header, position, byte in edits:
            position %= min(len(content), HEADER_BYTES[kind] if in_header else len(content))
            text = kind in ("mha", "mhd", "nrrd") and position < HEADER_BYTES[kind]
            assume(not (text and byte in NUMERIC and content[position] in NUMERIC))
            content[position] = byte
        files[number].write_bytes(content[: int(length * len(content))] if length else content)
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                scan = read_scan(source)
        except InputError as error:
            assert "\n" not in str(error) and str(folder) in str(error)
            outcomes["told"] += 1
        else:
            outcomes["told" if caught else "read"] += 1
            if not caught:
                assert scan.GetSize() == reference.GetSize()
                shift_mm = np.abs(corners_mm(scan) - corners_mm(reference)).max()
                assert shift_mm <= 0.5 * min(reference.GetSpacing())
        finally:
            files[number].write_bytes(contents[number])

    damage()
    assert outcomes["told"] > 2 and sum(outcomes.values()) >= VARIANTS[kind]
