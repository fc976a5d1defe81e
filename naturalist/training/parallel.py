"""One network that several ranks teach at once: each from its part of every batch, and all by the same step."""

import contextlib
import gc

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from naturalist.data.share import Part
from naturalist.models.chance import Place, draw_for_whole_batches


class Parallel:
    """torch's DistributedDataParallel around a network.

    The network itself stays what is kept and measured. Without batch normalisation its gradients are, to rounding,
    those that one process would have; with it each rank normalises by its own rows, and the running statistics that
    count are the first rank's.

    Args:
        model: the same on every rank, on the device.
        sync_batch_norm: normalise by the rows of all ranks, which takes GPUs.
    """

    def __init__(self, model: nn.Module, *, sync_batch_norm: bool) -> None:
        self._model, self._place = model, Place()
        draw_for_whole_batches(model, self._place)
        if sync_batch_norm:
            nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        self._wrapped: DistributedDataParallel | None = None
        self._learning: list[nn.Parameter] = []

    def wrap(self) -> None:
        """Take note of which parameters learn; to be called by all ranks, before every epoch."""
        learning = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        if list(map(id, learning)) == list(map(id, self._learning)):
            return
        self._learning, self._wrapped = learning, None
        gc.collect()  # the wrapper before listens to the same gradients for as long as it is there
        self._wrapped = DistributedDataParallel(self._model)

    def __call__(self, inputs: Tensor, part: Part) -> Tensor:
        """The rank's own logits of a part's inputs."""
        assert self._wrapped is not None, "wrap has been called"
        self._place.part = part
        logits: Tensor = self._wrapped(inputs[: part.learnt])
        return logits[: part.own]

    def gradients(self, *, ends_group: bool) -> contextlib.AbstractContextManager[object]:
        """Around a pass forward and back: only the last of a group brings the gradients of all ranks together."""
        assert self._wrapped is not None, "wrap has been called"
        return contextlib.nullcontext() if ends_group else self._wrapped.no_sync()
