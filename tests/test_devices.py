import subprocess
import sys

import pytest

from bonelib import devices


def test_the_machine_is_described_without_its_name():
    machine = devices.machine()
    assert machine["cores"] >= 1 and machine["memory_gib"] > 0
    assert set(machine) == {"system", "processor", "cores", "memory_gib", "gpus"}


@pytest.mark.parametrize(
    ("flags", "capabilities", "backend", "policy"),
    [
        ("avx2", [], "tensorflow", "float32"),
        ("AuthenticAMD avx512_bf16", [], "tensorflow", "mixed_bfloat16"),
        ("GenuineIntel avx512_bf16", [], "tensorflow", "float32"),
        ("GenuineIntel amx_bf16", [], "tensorflow", "mixed_bfloat16"),
        ("AuthenticAMD avx512_bf16", [], "jax", "float32"),
        ("avx2", ["9.0", "8.0"], "jax", "mixed_bfloat16"),
        ("avx2 avx512_bf16", ["9.0", "7.5"], "jax", "mixed_float16"),
    ],
)
def test_the_fastest_precision_is_that_of_the_hardware(
    flags, capabilities, backend, policy, tmp_path, monkeypatch
):
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(devices, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(devices, "_query_gpus", lambda _: capabilities)
    assert devices.fastest_precision(backend) == policy


FAULTS = """
import resource
import sys
from bonelib import devices
if sys.argv[1] == "kept":
    devices.keep_freed_memory()
for _ in range(20):
    b"x" * (5 * 10**7)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's memory")
def test_freed_memory_is_not_faulted_in_again():
    usual, kept = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS, option]))
        for option in ("usual", "kept")
    )
    assert kept < usual / 3
