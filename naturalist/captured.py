"""Work on a GPU as CUDA graphs: recorded once and launched as a whole, so that no kernel waits for Python.

A step of a small network is a few hundred kernels, each shorter than its launch from Python takes. See "Constraints" in
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs for what may be recorded.
"""

import contextlib
import gc
import warnings
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from naturalist.errors import UserError
from naturalist.reading import one_line

Work = Callable[..., tuple[Tensor, ...]]

WARM_UPS = 3
"""Calls before the recording: cuDNN chooses its algorithms and the optimiser makes its state."""
KEPT = 2
"""Recordings that are kept: of whole batches, and of the smaller one at an epoch's end. They share their memory."""


class Captured:
    """A function of tensors on a GPU that is replayed once it has been recorded, for inputs of each shape apart.

    All else that it computes from must lie in tensors that stay in place, and what it does beside computing happens
    while it is recorded and never again.

    Args:
        work: tensors to tensors, without waiting for the device.
        what: for people.
    """

    def __init__(self, work: Work, what: str) -> None:
        self._work, self._what = work, what
        self._pool = torch.cuda.graph_pool_handle() if torch.cuda.is_available() else None
        self._recordings: dict[object, _Recording] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the function returns, in tensors that the next call overwrites.

        Raises:
            UserError: when it cannot be recorded; torch's generators are in disorder then.
        """
        shapes = tuple((value.shape, value.stride(), value.dtype) for value in inputs)
        recording = self._recordings.pop(shapes, None) or _Recording(self._work, self._pool)
        self._recordings[shapes] = recording  # the last is the one used last
        while len(self._recordings) > KEPT:
            del self._recordings[next(iter(self._recordings))]
        if recording.calls == WARM_UPS and not recording.is_recorded:
            try:
                recording.record(*inputs)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, UserWarning) as error:
                raise UserError(
                    f"{self._what} cannot be recorded as a CUDA graph ({one_line(str(error))}); with "
                    "--no_cuda_graphs they run kernel by kernel."
                ) from error
        return recording(*inputs)


class _Recording:
    """The function for inputs of one shape, all on one device."""

    def __init__(self, work: Work, pool: Any) -> None:
        self._work, self._pool, self.calls = work, pool, 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._outputs: tuple[Tensor, ...] = ()

    @property
    def is_recorded(self) -> bool:
        return self._graph is not None

    def record(self, *inputs: Tensor) -> None:
        """Record, and compute nothing."""
        device = inputs[0].device
        self._inputs = tuple(value.clone() for value in inputs)
        graph = torch.cuda.CUDAGraph()
        with no_collection(), torch.cuda.device(device), warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*graph is empty")
            # Threads that read ahead may go on to allocate.
            how = {"stream": stream_of(device), "pool": self._pool, "capture_error_mode": "thread_local"}
            with torch.cuda.graph(graph, **how):
                self._outputs = self._work(*self._inputs)
        self._graph = graph

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        if self._graph is None:
            self.calls += 1
            return self._beside(inputs)
        for place, value in zip(self._inputs, inputs, strict=True):
            place.copy_(value, non_blocking=True)
        self._graph.replay()
        return self._outputs

    def _beside(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Run on another stream than the default one, which nothing may have touched that is recorded later."""
        device = inputs[0].device
        current, side = torch.cuda.current_stream(device), stream_of(device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            outputs = self._work(*inputs)
        current.wait_stream(side)
        return outputs


@lru_cache
def stream_of(device: torch.device) -> torch.cuda.Stream:
    """On which all is recorded. Always the same: torch gives out few, one after the other, again and again."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # of torch


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Nothing is collected inside, all that can be is before: an earlier graph that ends would spoil the recording."""
    gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
