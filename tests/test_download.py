"""Downloads from a real server on this machine, which misbehaves as it is told to."""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from bonelib.__main__ import main
from bonelib.datasets import download as downloading
from bonelib.datasets import transfer
from bonelib.datasets.catalogue import CATALOGUE, Entry, File, Release
from bonelib.datasets.download import download
from bonelib.errors import InputError

CONTENT = np.random.default_rng(0).bytes(300_000)
PIECE = 4096  # bytes that are written at once
OTHER = np.random.default_rng(1).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves `files` by the last part of their path, and notes what was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = {}, []
        self.breaks = []  # of each answer to come: after how many bytes the connection ends
        self.statuses = []  # of each answer to come, where it is an error
        self.ranges = True  # else the header Range is not understood
        self.declared = None  # what the server says is the length of the whole
        self.content_range = None  # what it says of a part, where that is wrong

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):  # noqa: N802 (names that http.server calls)
        self.server.asked.append((self.path, "HEAD"))
        self.send_response(200)
        if self.server.declared != "none":
            self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()

    def do_GET(self):  # noqa: N802
        server = self.server
        server.asked.append((self.path, self.headers.get("Range")))
        content = server.files.get(self.path.rsplit("/", 1)[-1])
        status = server.statuses.pop(0) if server.statuses else 200 if content else 404
        if status != 200:
            return self.send_error(status)
        start = 0
        if server.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self.send_error(416)
            self.send_response(206)
            usual = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", server.content_range or usual)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(server.declared or len(content) - start))
        self.end_headers()
        rest = content[start:]
        self.wfile.write(rest[: server.breaks.pop(0)] if server.breaks else rest)

    def log_message(self, *_):
        pass


def described(content):
    return File("data.zip", f"sha256:{hashlib.sha256(content).hexdigest()}", len(content))


@pytest.fixture
def server(monkeypatch):
    server = Server()
    server.files["data.zip"] = CONTENT
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setattr(downloading, "ZENODO", server.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(transfer, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(transfer, "_CHUNK_BYTES", PIECE)
    set_up(monkeypatch, described(CONTENT))
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def set_up(monkeypatch, *files):
    entry = Entry("Made-up", "none", "10.1/x", "", {"whole": Release("123", files)})
    monkeypatch.setitem(CATALOGUE, "madeup", entry)


def refusal(directory, **options):
    with pytest.raises(InputError) as caught:
        download("madeup", directory, **options)
    message = str(caught.value)
    assert "\n" not in message and ";" in message
    return message


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_a_good_file_comes_once(server, tmp_path, capsys):
    directory = tmp_path / "new" / "folder"
    (file,) = download("madeup", directory)
    assert file.read_bytes() == CONTENT
    assert names(directory) == ["data.zip"]
    assert server.asked == [("/records/123/files/data.zip", None)]
    shown = capsys.readouterr().err
    assert "data.zip" in shown and "300k/300k" in shown and "B/s" in shown
    assert download("madeup", directory) == [file]
    assert len(server.asked) == 1


def test_a_file_that_is_not_whole_is_fetched_anew(server, tmp_path):
    (tmp_path / "data.zip").write_bytes(OTHER)
    download("madeup", tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT


def test_a_broken_connection_is_continued(server, tmp_path):
    server.breaks = [25 * PIECE, 12 * PIECE]
    download("madeup", tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT
    ranges = [asked for _, asked in server.asked]
    assert ranges == [None, f"bytes={25 * PIECE}-", f"bytes={37 * PIECE}-"]


def test_a_connection_that_stays_broken_says_how_far_it_came(server, tmp_path):
    server.breaks = [25 * PIECE] + [0] * transfer.TRIES
    message = refusal(tmp_path)
    assert f"broke off after {25 * PIECE} of 300000 bytes; the same command goes on" in message
    assert names(tmp_path) == ["data.zip.part"]
    server.asked.clear()
    download("madeup", tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [f"bytes={25 * PIECE}-"]
    assert names(tmp_path) == ["data.zip"]


def test_no_server(server, tmp_path):
    message = refusal(tmp_path, mirror="http://127.0.0.1:9")
    assert "broke off after 0 of 300000 bytes" in message
    assert names(tmp_path) == []


@pytest.mark.parametrize("there", [1, 123_456, 299_999, 300_000])
def test_what_a_killed_process_left_is_continued(server, tmp_path, there):
    (tmp_path / "data.zip.part").write_bytes(CONTENT[:there])
    download("madeup", tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT
    assert len(server.asked) == (there < len(CONTENT))
    assert names(tmp_path) == ["data.zip"]


def test_a_part_that_is_too_long_is_begun_anew(server, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(OTHER + b"more")
    download("madeup", tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT


def test_a_server_without_ranges_begins_anew(server, tmp_path):
    server.ranges = False
    server.breaks = [100_000, 200_000]
    download("madeup", tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_never_gets_further_is_given_up(server, tmp_path, ranges):
    server.ranges = ranges
    server.content_range = "bytes 0-1/2"  # begins anew each time
    server.breaks = [PIECE, 0] * 9 if ranges else [PIECE] * 9
    assert "the same command goes on" in refusal(tmp_path)
    assert len(server.asked) <= 2 * transfer.TRIES


@pytest.mark.parametrize(
    "content_range",
    ["bytes 0-199999/300000", "bytes 100000-299999/999", "bytes */300000", "nonsense"],
)
def test_a_wrong_part_is_not_appended(server, tmp_path, content_range):
    (tmp_path / "data.zip.part").write_bytes(CONTENT[:100_000])
    server.content_range = content_range
    download("madeup", tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == ["bytes=100000-", None]


def test_a_range_that_the_server_refuses(server, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(CONTENT[:100_000])
    server.statuses = [416]
    download("madeup", tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT


@pytest.mark.parametrize("declared", [299_999, 300_001, 10**15])
def test_a_server_that_lies_about_the_length_is_refused(server, tmp_path, declared):
    server.declared = declared
    message = refusal(tmp_path)
    assert f"a file of {declared} bytes instead of 300000" in message
    assert names(tmp_path) == []


def test_a_file_that_ends_before_its_declared_end(server, tmp_path):
    server.files["data.zip"] = CONTENT[:200_000]
    server.declared = 300_000
    assert "instead of 300000" not in refusal(tmp_path)
    assert not (tmp_path / "data.zip").exists()


def test_a_wrong_file_of_the_right_length_is_removed(server, tmp_path):
    server.files["data.zip"] = OTHER
    assert "another checksum, which is removed" in refusal(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_a_refusal_is_final(server, tmp_path, status):
    server.statuses = [status]
    assert f"the server answers {status}; try again later" in refusal(tmp_path)
    assert len(server.asked) == 1 and names(tmp_path) == []


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.statuses = [500, 503, 429]
    download("madeup", tmp_path)
    assert (tmp_path / "data.zip").read_bytes() == CONTENT
    server.statuses = [500] * transfer.TRIES
    (tmp_path / "data.zip").unlink()
    assert "broke off after 0 of 300000 bytes" in refusal(tmp_path)


def test_a_disk_nearly_full_is_noticed_before(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": transfer.KEEP_FREE_BYTES + 200_000})
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda path: usage)
    assert "may be used on the disk; free some space" in refusal(tmp_path)
    assert server.asked == [] and names(tmp_path) == []
    (tmp_path / "data.zip.part").write_bytes(CONTENT[:100_000])  # what is there, need not come
    download("madeup", tmp_path)


def test_a_disk_that_is_full_all_the_same(server, tmp_path, monkeypatch):
    def fill(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(transfer, "_continue", fill)
    assert "the disk is full; free some space" in refusal(tmp_path)


def test_a_mirror_has_the_files_by_name(server, tmp_path):
    download("madeup", tmp_path, mirror=f"{server.url}/pub/sets/")
    assert server.asked == [("/pub/sets/data.zip", None)]
    for address in ("ftp://127.0.0.1/x", "file:///etc", "/etc", "http://", "https:// x"):
        (tmp_path / "data.zip").unlink(missing_ok=True)
        assert "is no web address" in refusal(tmp_path, mirror=address)


def test_what_the_catalogue_lacks_the_record_says(server, tmp_path, monkeypatch):
    good = described(CONTENT)
    md5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    record = {"files": [{"key": "data.zip", "size": 300_000, "checksum": md5}]}
    server.files["123"] = json.dumps(record).encode()
    for file in (File("data.zip"), File("data.zip", good.checksum)):
        server.asked.clear()
        set_up(monkeypatch, file)
        download("madeup", tmp_path)
        assert (tmp_path / "data.zip").read_bytes() == CONTENT
        assert [path for path, _ in server.asked] == [
            "/api/records/123",
            "/records/123/files/data.zip",
        ]
        (tmp_path / "data.zip").unlink()
    set_up(monkeypatch, File("data.zip", "sha256:" + "0" * 64))
    assert "another checksum" in refusal(tmp_path)


def test_a_mirror_needs_no_record(server, tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "ZENODO", "http://127.0.0.1:9")
    set_up(monkeypatch, File("data.zip", described(CONTENT).checksum))
    download("madeup", tmp_path, mirror=f"{server.url}/pub")
    assert (tmp_path / "data.zip").read_bytes() == CONTENT
    assert server.asked == [("/pub/data.zip", "HEAD"), ("/pub/data.zip", None)]
    (tmp_path / "data.zip").unlink()
    server.declared = "none"
    assert "does not tell the size" in refusal(tmp_path, mirror=f"{server.url}/pub")


@pytest.mark.parametrize("record", [b"[]", b'{"files": [{"key": "other"}]}', b"{}", b"3"])
def test_a_record_without_the_files(server, tmp_path, monkeypatch, record):
    server.files["123"] = record
    set_up(monkeypatch, File("data.zip"))
    assert "does not list the data set's files; try again" in refusal(tmp_path)


def test_a_record_that_makes_no_sense(server, tmp_path, monkeypatch):
    server.files["123"] = b"<html>"
    set_up(monkeypatch, File("data.zip"))
    assert "makes no sense; try again later" in refusal(tmp_path)


def test_a_record_that_is_not_there(server, tmp_path, monkeypatch):
    set_up(monkeypatch, File("data.zip"))
    assert "the server answers 404" in refusal(tmp_path)
    monkeypatch.setattr(downloading, "ZENODO", "http://127.0.0.1:9")
    assert "no answer; check the connection" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "variant", "words"),
    [
        ("ct_org", None, "10.7937/TCIA.2019.TT7F4V7O"),
        ("ctpel", None, "10.23698/aida/ctpel"),
        ("ctpelvic1k", "scans", "Synapse"),
    ],
)
def test_where_an_owner_wants_more_it_says_how(tmp_path, name, variant, words):
    with pytest.raises(InputError, match="cannot be fetched by a program; ") as caught:
        download(name, tmp_path / "out", variant)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_unknown_names(tmp_path):
    with pytest.raises(InputError, match="choose one of totalsegmentator, ctpelvic1k"):
        download("ghost", tmp_path)
    with pytest.raises(InputError, match="choose one of v2, small, v3"):
        download("totalsegmentator", tmp_path, "v9")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made a folder"):
        download("pengwin", tmp_path / "file")


def test_every_checksum_has_the_digits_of_its_algorithm():
    digits = {"md5": 32, "sha256": 64}
    for entry in CATALOGUE.values():
        for release in entry.releases.values():
            for file in getattr(release, "files", ()):
                if file.checksum:
                    algorithm, _, text = file.checksum.partition(":")
                    assert len(bytes.fromhex(text)) * 2 == digits[algorithm]


def test_the_command_says_where_the_files_are(server, tmp_path, capsys):
    arguments = ["-o", str(tmp_path), "--mirror", server.url]
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(CATALOGUE, "pengwin", CATALOGUE["madeup"])
        assert main(["download", "pengwin", *arguments]) == 0
    assert f"--dataset pengwin --data {tmp_path}" in capsys.readouterr().out
    assert names(tmp_path) == ["data.zip"]


def test_the_command_refuses_in_one_line(capsys):
    for name in ("ct_org", "ctpel"):
        assert main(["download", name]) == 2
        complaint = capsys.readouterr().err
        assert complaint.startswith(f"bonelib: {name}: cannot be fetched by a program; ")
        assert "doi.org" in complaint and len(complaint.splitlines()) == 1
