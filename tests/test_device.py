"""What is said about the machine is true of the run at hand."""

import sys

import pytest
import torch

from naturalist.device import forget_peak_memory, peak_memory_mb

CPU = torch.device("cpu")
LARGE_MB = 400


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets")
def test_peak_memory_is_that_of_one_run_among_several_in_a_process():
    forget_peak_memory(CPU)
    before = peak_memory_mb(CPU)
    large = torch.ones(LARGE_MB * 250_000)
    assert peak_memory_mb(CPU) > before + 0.9 * LARGE_MB
    del large
    forget_peak_memory(CPU)
    assert peak_memory_mb(CPU) < before + 0.5 * LARGE_MB
