"""The runtime: devices, formats, threads, and what it records."""

import json

import pytest
import torch

from nanochat import runtime
from nanochat.errors import DeviceError, UsageError
from nanochat.runtime import detect, home, machine, measure_peak, peak_memory_gb, versions


def test_the_thread_count_is_set_and_recorded():
    before = torch.get_num_threads()
    here = detect("cpu", "float32", threads=1)
    assert torch.get_num_threads() == 1
    assert machine(here)["threads"] == 1
    torch.set_num_threads(before)


def test_auto_is_bf16_only_where_the_processor_multiplies_it(monkeypatch):
    monkeypatch.setattr(runtime, "cpu_flags", lambda: {"avx2"})
    assert detect("cpu").dtype == torch.float32
    monkeypatch.setattr(runtime, "cpu_flags", lambda: {"avx2", "avx512_bf16"})
    assert detect("cpu").dtype == torch.bfloat16


@pytest.mark.parametrize(("device", "dtype", "said"), [("tpu", "auto", "cpu"), ("cpu", "int3", "bfloat16")])
def test_what_is_not_there_is_refused_with_what_is(device, dtype, said):
    with pytest.raises((DeviceError, UsageError), match=said):
        detect(device, dtype)


def test_ranks_come_from_torchrun(monkeypatch):
    for name, value in {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    here = detect("cpu", "float32")
    assert (here.rank, here.world, here.is_main) == (3, 4, False)
    assert here.threads == max(1, runtime.available_cores() // 2)


def test_home_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("NANOCHAT_HOME", str(tmp_path))
    assert home() == tmp_path
    monkeypatch.delenv("NANOCHAT_HOME")
    assert home().name == "nanochat"


def test_what_is_recorded_is_json_and_measured():
    here = detect("cpu", "float32")
    assert json.loads(json.dumps({**machine(here), **versions()}))["torch"] == str(torch.__version__)
    assert measure_peak(here, seconds=0.01) > 1e8
    assert peak_memory_gb() > 0.05
