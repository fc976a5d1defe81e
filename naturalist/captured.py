"""Work on a GPU as CUDA graphs: recorded once and launched as a whole, so that no kernel waits for Python.

A step of a small network is a few hundred kernels, each shorter than its launch from Python takes. See "Constraints" in
https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs for what may be recorded.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from naturalist.errors import UserError
from naturalist.reading import one_line

Work = Callable[..., tuple[Tensor, ...]]

WARM_UPS = 3
"""Calls before the recording: cuDNN chooses its algorithms and the optimiser makes its state."""
KEPT = 2
"""Recordings that are kept, each with memory of its own: of whole batches, and of the smaller one at an epoch's end."""


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
        self._recordings: dict[object, _Recording] = {}

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """What the function returns, in tensors that the next call overwrites.

        Raises:
            UserError: when it cannot be recorded; torch's generators are in disorder then.
        """
        shapes = tuple((value.shape, value.stride(), value.dtype) for value in inputs)
        recording = self._recordings.pop(shapes, None) or _Recording(self._work)
        self._recordings[shapes] = recording  # the last is the one used last
        while len(self._recordings) > KEPT:
            del self._recordings[next(iter(self._recordings))]
        if recording.calls == WARM_UPS and not recording.is_recorded:
            try:
                recording.record(*inputs)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise UserError(
                    f"{self._what} cannot be recorded as a CUDA graph ({one_line(str(error))}); give --no_cuda_graphs, "
                    "and they run kernel by kernel."
                ) from error
        return recording(*inputs)


class _Recording:
    """The function for inputs of one shape."""

    def __init__(self, work: Work) -> None:
        self._work, self.calls = work, 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._side: torch.cuda.Stream | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._outputs: tuple[Tensor, ...] = ()

    @property
    def is_recorded(self) -> bool:
        return self._graph is not None

    def record(self, *inputs: Tensor) -> None:
        """Record, and compute nothing."""
        self._inputs = tuple(value.clone() for value in inputs)
        graph = torch.cuda.CUDAGraph()
        # Threads that read ahead may go on to allocate.
        with no_collection(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
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
        current = torch.cuda.current_stream()
        side = self._side = self._side or torch.cuda.Stream()  # type: ignore[no-untyped-call]  # of torch
        side.wait_stream(current)
        with torch.cuda.stream(side):
            outputs = self._work(*inputs)
        current.wait_stream(side)
        return outputs


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
