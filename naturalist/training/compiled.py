"""A network whose training passes torch.compile turns into few, larger kernels."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from naturalist.errors import UserError, is_out_of_memory
from naturalist.reading import one_line

Options = dict[str, str | int | bool | Callable[..., object]] | None
Compiler = str | Callable[..., object]


class Compiled:
    """Passes of a network, forward and back, compiled for whole batches; a smaller one goes the usual way.

    Batch normalisation, activation and pooling then read and write their numbers once instead of several times each.
    What is computed is the same to rounding, with the same chance. It is compiled anew when the images' size changes,
    or other parameters learn. See https://docs.pytorch.org/docs/stable/generated/torch.compile.html, and
    :func:`failures_told` for what goes wrong.

    Args:
        model: stays what learns, and what is kept and measured.
        batch_size: images of a whole batch.
        compiler: what torch.compile has for a backend.
    """

    def __init__(self, model: nn.Module, batch_size: int, compiler: Compiler = "inductor") -> None:
        self._model, self._batch_size = model, batch_size
        # Dropout is to draw as torch does, not as the compiler would.
        options: Options = {"fallback_random": True} if compiler == "inductor" else None
        self._passes: Callable[[Tensor], Tensor] = torch.compile(
            model, dynamic=False, backend=compiler, options=options
        )
        self._compiled_for: tuple[object, ...] = ()

    def __call__(self, inputs: Tensor) -> Tensor:
        """The network's outputs."""
        if len(inputs) != self._batch_size:
            outputs: Tensor = self._model(inputs)
            return outputs
        wanted = inputs.shape, *(parameter.requires_grad for parameter in self._model.parameters())
        if wanted != self._compiled_for:
            print("Compiling what learns, which takes about a minute.", flush=True)
            torch.compiler.reset()  # else the eighth is the last to be compiled, and the others are slow without a word
            self._compiled_for = wanted
        return self._passes(inputs)


@contextlib.contextmanager
def failures_told() -> Iterator[None]:
    """Around passes forward and back: one that cannot be compiled raises a :class:`UserError`."""
    try:
        yield
    except RuntimeError as error:
        from torch._dynamo.exc import TorchDynamoException  # it takes a second to import

        if not isinstance(error, TorchDynamoException) or is_out_of_memory(error):
            raise
        problem = one_line(str(error).split("\n\n")[0])  # what follows is for torch's developers
        raise UserError(
            f"the network cannot be compiled here ({problem}); with --no_compile it runs as it is."
        ) from error
