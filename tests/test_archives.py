import io
import stat
import tarfile
import zipfile
from contextlib import suppress

import numpy as np
import pytest

from bonelib import archives
from bonelib.errors import InputError

FILES = {"s1/ct.nii.gz": b"image" * 50, "s1/deep/er/mask.nii.gz": b"mask" * 70, "meta.csv": b"a;b"}
SUFFIXES = archives.SUFFIXES


def add_to_tar(archive, name, content=b"", **changes):
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for field, value in changes.items():
        setattr(entry, field, value)
    archive.addfile(entry, io.BytesIO(content))


@pytest.fixture
def pack(tmp_path):
    """Write files, by name, as an archive of the kind that its suffix says."""

    def write(files, suffix=".zip", name="scans"):
        path = tmp_path / f"{name}{suffix}"
        if suffix == ".zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                for member, content in files.items():
                    archive.writestr(member, content)
        else:
            kind = {"tgz": "gz", "tar": ""}.get(suffix.split(".")[-1], suffix.split(".")[-1])
            with tarfile.open(path, f"w:{kind}") as archive:
                for member, content in files.items():
                    add_to_tar(archive, member, content)
        return path

    return write


def refusal(archive, tmp_path, **options):
    """The one line that refuses an archive, after which nothing of it is left."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        archives.unpack(archive, tmp_path / "out", **options)
    assert sorted(tmp_path.rglob("*")) == before
    message = str(caught.value)
    assert "\n" not in message and str(archive) in message and ";" in message
    return message


def contents(folder):
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_come_out_as_they_went_in(pack, tmp_path, suffix):
    archive = pack(FILES, suffix)
    assert archives.is_archive(archive)
    archives.unpack(archive, tmp_path / "out")
    assert contents(tmp_path / "out") == FILES
    with archives.unpacked(archive) as folder:
        assert contents(folder) == FILES
    assert not folder.exists()


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.npz", "zip", "scan.gz"])
def test_other_files_are_no_archives(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    assert not archives.is_archive(tmp_path / name)
    (tmp_path / "folder.zip").mkdir()
    assert not archives.is_archive(tmp_path / "folder.zip")


def test_only_what_is_wanted(pack, tmp_path):
    archives.unpack(pack(FILES), tmp_path / "out", lambda name: name.startswith("s1/deep"))
    assert list(contents(tmp_path / "out")) == ["s1/deep/er/mask.nii.gz"]


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz"])
def test_what_a_mac_adds_is_left_out(pack, tmp_path, suffix):
    junk = {"s1/._ct.nii.gz": b"x", "__MACOSX/s1/ct.nii.gz": b"x", "._meta.csv": b"x"}
    archives.unpack(pack(FILES | junk, suffix), tmp_path / "out")
    assert contents(tmp_path / "out") == FILES


def test_folders_and_names_of_windows(pack, tmp_path):
    archives.unpack(pack({"a\\b.txt": b"1", "c/": b"", "./d": b"2"}), tmp_path / "out")
    assert contents(tmp_path / "out") == {"a/b.txt": b"1", "d": b"2"}


def test_a_folder_that_is_there_is_left_alone(pack, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="is there already; remove it"):
        archives.unpack(pack(FILES), tmp_path / "out")
    assert not contents(tmp_path / "out")


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "..\\x", "C:/x", "C:x", "a/.."])
def test_names_that_escape_are_refused(pack, tmp_path, name, suffix):
    message = refusal(pack({"good": b"1", name: b"2"}, suffix), tmp_path)
    assert "leads out of the folder" in message
    assert not (tmp_path.parent / "x").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add_to_tar(archive, "good", b"1")
        add_to_tar(archive, "bad", type=kind, linkname="/etc/passwd")
    assert "a link or a device ('bad')" in refusal(tmp_path / "x.tar", tmp_path)


def test_a_link_in_a_zip_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        entry = zipfile.ZipInfo("bad")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    assert "a link or a device" in refusal(tmp_path / "x.zip", tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        add_to_tar(archive, "a/b", b"1")
        add_to_tar(archive, "a/./b", b"2")
    assert "two files of one name" in refusal(tmp_path / "x.tar", tmp_path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_archive_is_refused_wherever_it_is_cut(pack, tmp_path, suffix):
    whole = pack(FILES, suffix).read_bytes()
    # A tar's last blocks, after the one that ends it, are padding.
    end = len(whole) - 1 if suffix != ".tar" else whole.rindex(b"mask") + 512
    cut = tmp_path / f"cut{suffix}"
    for length in np.linspace(0, end, 60).astype(int):
        cut.write_bytes(whole[:length])
        assert "damaged or incomplete; get it again" in refusal(cut, tmp_path)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tar.gz", ".tar.xz"])
def test_random_damage_is_refused_or_harmless(pack, tmp_path, suffix):
    whole = pack(FILES, suffix).read_bytes()
    damaged = tmp_path / f"damaged{suffix}"
    generator = np.random.default_rng(3)
    for number in range(100):
        broken = bytearray(whole)
        for position in generator.integers(len(broken), size=3):
            broken[position] = generator.integers(256)
        damaged.write_bytes(broken)
        with suppress(InputError):
            archives.unpack(damaged, tmp_path / f"out{number}")
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_no_archive_at_all(tmp_path):
    for name in ("x.zip", "x.tar", "x.tgz"):
        (tmp_path / name).write_text("<html>Not found</html>" * 100)
        assert "damaged or incomplete" in refusal(tmp_path / name, tmp_path)
    with pytest.raises(InputError, match="check that it is there"):
        archives.unpack(tmp_path / "absent.zip", tmp_path / "out")


def test_a_zip_with_a_password_is_refused(pack, tmp_path):
    archive = pack({"a": b"1"})
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the table of contents
    archive.write_bytes(content)
    assert "is encrypted; unpack it with its password" in refusal(archive, tmp_path)


def test_an_unknown_method_is_refused(pack, tmp_path):
    archive = pack({"a": b"1" * 100})
    content = bytearray(archive.read_bytes())
    for magic, place in ((b"PK\x01\x02", 10), (b"PK\x03\x04", 8)):
        content[content.index(magic) + place] = 97
    archive.write_bytes(content)
    assert "by a method that cannot be read here" in refusal(archive, tmp_path)


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_bomb_is_refused_and_a_short_archive_of_zeros_is_not(pack, tmp_path, monkeypatch, suffix):
    archive = pack({"zeros": bytes(2**23)}, suffix)
    archives.unpack(archive, tmp_path / "zeros")
    assert (tmp_path / "zeros" / "zeros").stat().st_size == 2**23
    monkeypatch.setattr(archives, "SMALLEST_BOMB_BYTES", 2**20)
    assert "times its size, as a decompression bomb does" in refusal(archive, tmp_path)


def test_a_bomb_that_lies_about_its_size_is_stopped(pack, tmp_path, monkeypatch):
    archive = pack({"zeros": bytes(2**23)})
    content = bytearray(archive.read_bytes())
    for magic, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        start = content.index(magic) + place
        content[start : start + 4] = (100).to_bytes(4, "little")
    archive.write_bytes(content)
    monkeypatch.setattr(archives, "SMALLEST_BOMB_BYTES", 2**20)
    assert "damaged" in refusal(archive, tmp_path)


def test_a_tar_header_of_any_size_is_not_read_into_memory(tmp_path):
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as archive:
        add_to_tar(archive, "name", bytes(2**25), type=tarfile.XHDTYPE)
        add_to_tar(archive, "good", b"1")
    assert "damaged" in refusal(tmp_path / "x.tar.gz", tmp_path)


def test_too_many_files_are_refused(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBERS", 3)
    archives.unpack(pack(FILES), tmp_path / "three")
    archive = pack(FILES | {"one more": b""}, ".tar")
    assert "more than 3 files" in refusal(archive, tmp_path)


@pytest.mark.parametrize("suffix", [".zip", ".tar"])
def test_a_full_disk_and_the_limit_of_temporary_folders(pack, tmp_path, monkeypatch, suffix):
    archive = pack({"a": bytes(range(256)) * 100}, suffix)
    monkeypatch.setattr(archives, "MAX_TEMPORARY_BYTES", 25_599)
    with (
        pytest.raises(InputError, match="more than 0.0 GiB; unpack it yourself"),
        archives.unpacked(archive),
    ):
        pass
    free = archives.KEEP_FREE_BYTES + 25_599
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: usage)
    assert "may be used on the disk; free some space" in refusal(archive, tmp_path)
    usage.free += 1
    archives.unpack(archive, tmp_path / "fits")


def test_what_a_killed_process_left_is_removed(pack, tmp_path):
    for name in (".999999999-out", ".1-out", ".999999999-other"):
        (tmp_path / name).mkdir()
    archives.unpack(pack(FILES), tmp_path / "out")
    hidden = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert hidden == {".1-out", ".999999999-other"}
