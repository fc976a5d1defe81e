"""The processes that torchrun starts for one training, the ranks: who this one is, and what they tell each other.

torchrun names them in the environment. torch is imported when they meet, so that ``--help`` does not wait for it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from naturalist.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

LONGEST_WAIT = timedelta(hours=12)
"""For another rank. One that died is noticed at once; a machine that decodes its photographs first is waited for."""

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells every process that it starts."""


@dataclass(frozen=True)
class Rank:
    """One process of those that train together."""

    number: int = 0
    count: int = 1
    """Of all, on all machines."""
    local: int = 0
    """Number on its machine, which is that of its GPU."""

    @property
    def is_alone(self) -> bool:
        """Whether it is the only one: then nothing is shared, and nobody is waited for."""
        return self.count == 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes and prints."""
        return self.number == 0


def this_rank() -> Rank:
    """This process, as torchrun named it; alone where nothing did.

    Raises :class:`UserError` for an environment that is only half of torchrun's.
    """
    count = os.environ.get("WORLD_SIZE", "1")
    if count == "1":
        return Rank()
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    numbers = [os.environ.get(name, "0") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")]
    if missing or not all(number.isdecimal() for number in numbers) or not int(numbers[0]) < int(count):
        raise UserError(
            f"the environment has WORLD_SIZE={count!r}, but not all that torchrun sets "
            f"({', '.join(missing or VARIABLES)}); start several processes with torchrun, or unset WORLD_SIZE."
        )
    return Rank(*map(int, numbers))


def require_alone(what: str) -> None:
    """Raise :class:`UserError` under torchrun, for what only one process can do."""
    if not this_rank().is_alone:
        raise UserError(
            f"{what} works in one process; under torchrun run partA/train.py, partB/finetune.py or naturalist evaluate."
        )


def join() -> Rank:
    """Meet the other ranks, once; :func:`leave` parts from them."""
    rank = this_rank()
    if not rank.is_alone:
        import torch
        from torch import distributed

        if not distributed.is_initialized():
            # What lies on a GPU goes by NCCL, all else by gloo.
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            distributed.init_process_group(backend, timeout=LONGEST_WAIT)
    return rank


def leave() -> None:
    """Part from the other ranks; from now on each is on its own."""
    if not this_rank().is_alone:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()


@contextmanager
def in_turn(rank: Rank) -> Iterator[None]:
    """On every machine its first rank goes first: what it downloads, draws or decodes, the others find."""
    meeting = Agreement(rank)
    if rank.local:
        meeting.now(False)
    yield
    if not rank.local:
        meeting.now(False)


def is_first_to_speak() -> bool:
    """Whether no other rank has said yet what ended all of them: the others follow it, and have nothing to add."""
    try:
        rank = this_rank()
    except UserError:
        return True
    if rank.is_alone:
        return True
    from torch import distributed

    try:  # of torchrun itself, so that it is there whichever rank died
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        wait = timedelta(seconds=5)
        store = distributed.TCPStore(*place, is_master=False, wait_for_workers=False, timeout=wait)  # type: ignore[attr-defined]
        return bool(store.add(f"naturalist/spoken/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", 1) == 1)
    except (RuntimeError, ValueError):
        return True  # told twice is better than not at all


class Agreement:
    """Whether any rank wishes something, so that all of them do it between the same two steps."""

    def __init__(self, rank: Rank) -> None:
        self._rank = rank
        self._pending: tuple[Any, Tensor] | None = None

    def now(self, wish: bool) -> bool:
        """Whether any rank wishes it; waits for all of them."""
        if self._rank.is_alone:
            return wish
        sending, votes = self._send((wish,))
        sending.wait()
        return bool(votes[0])

    def soon(self, *wishes: bool) -> tuple[bool, ...]:
        """What any rank wished when it asked before, so that nobody has to wait; alone, the wishes themselves.

        After a wish that was granted the next call begins anew.
        """
        if self._rank.is_alone:
            return wishes
        granted = [False] * len(wishes)
        if self._pending is not None:
            sending, votes = self._pending
            sending.wait()
            granted = votes.bool().tolist()
        self._pending = None if any(granted) else self._send(wishes)
        return tuple(granted)

    @staticmethod
    def _send(wishes: tuple[bool, ...]) -> "tuple[Any, Tensor]":
        import torch
        from torch import distributed

        votes = torch.tensor(wishes, dtype=torch.uint8)  # on the CPU, where nothing waits for a GPU
        return distributed.all_reduce(votes, distributed.ReduceOp.MAX, async_op=True), votes


def gather(values: "Tensor", lengths: list[int] | None = None) -> "list[Tensor]":
    """What each rank has, in their order.

    Args:
        values: of this rank, ``[n, …]``.
        lengths: n of every rank; by default all are equal.
    """
    import torch
    from torch import distributed

    lengths = lengths or [len(values)] * this_rank().count
    padded = values.new_zeros((max(lengths), *values.shape[1:]))
    padded[: len(values)] = values
    everything = [torch.empty_like(padded) for _ in lengths]
    distributed.all_gather(everything, padded)
    return [of_rank[:length] for of_rank, length in zip(everything, lengths, strict=True)]


def take_from_first(model: "nn.Module") -> None:
    """Give a network the buffers of the first rank's: running statistics, which no gradient keeps equal."""
    from torch import distributed

    for buffer in model.buffers():
        distributed.broadcast(buffer, 0)
