"""Damage to what is read back: bytes that flip, records that lose fields, checkpoints that are tampered with.

Every mutator takes a ``random.Random``, so that a seed tells what was done.
"""

import csv
import io
import json
import math
from copy import deepcopy
from random import Random
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    5,
    10**9,
    10**30,
    -0.5,
    1e308,
    math.nan,
    math.inf,
    "",
    "x",
    "../x",
    "/etc/passwd",
    "a\0b",
    "\udcff",
    "\u2028",
    "9" * 400,
    [],
    [1, "x"],
    {},
    {"x": {}},
)
"""What a value may become."""


def mutate_bytes(data: bytes, rng: Random) -> bytes:
    """The same bytes, cut short, flipped, overwritten, doubled or with others between them."""
    kind = rng.randrange(7)
    place = rng.randrange(len(data) + 1)
    end = min(len(data), place + rng.randrange(1, 64))
    if kind == 0:
        return data[:place]
    if kind == 1 and data:
        flipped = bytearray(data)
        for _ in range(rng.randrange(1, 8)):
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return bytes(flipped)
    if kind == 2:
        return data[:place] + b"\0" * (end - place) + data[end:]
    if kind == 3:
        return data[:place] + rng.randbytes(end - place) + data[end:]
    if kind == 4:
        return (
            data[:place]
            + rng.choice((b"\xff", b"\n", b"NaN", b"-", b'"', b"{", b"[" * 5000, b"9" * 5000))
            + data[place:]
        )
    if kind == 5:
        return data[:place] + data[end:]
    return data + data[place:]


def mutate_json(value: Any, rng: Random) -> Any:
    """A copy of a plain value in which one thing is missing, is something else, or is there twice."""
    value = deepcopy(value)
    places = list(_places(value))
    if not places:
        return rng.choice(ODD_VALUES)
    holder, key = rng.choice(places)
    kind = rng.randrange(4)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, list):
        holder.insert(key, deepcopy(holder[key]))
    elif kind == 1:
        holder[rng.choice(("x", "", "\u2028"))] = holder.pop(key)
    elif kind == 2 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
        holder[key] = rng.choice((-holder[key], holder[key] * 1000, holder[key] + 0.5, str(holder[key])))
    else:
        holder[key] = deepcopy(rng.choice(ODD_VALUES))
    return value


def mutate_json_text(text: bytes, rng: Random) -> bytes:
    """A JSON file with a mutated value."""
    return _dump(mutate_json(json.loads(text), rng))


def mutate_json_lines(text: bytes, rng: Random) -> bytes:
    """A file of JSON lines of which one is mutated, missing, doubled, torn, or in another place."""
    lines = text.splitlines(keepends=True)
    place = rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        del lines[place]
    elif kind == 1:
        lines.insert(rng.randrange(len(lines)), lines[place])
    elif kind == 2:
        lines[place] = lines[place][: rng.randrange(len(lines[place]))]
    else:
        lines[place] = _dump(mutate_json(json.loads(lines[place]), rng)) + b"\n"
    return b"".join(lines)


def mutate_csv(text: bytes, rng: Random) -> bytes:
    """A table of which a row or cell is missing, doubled or something else."""
    rows = list(csv.reader(io.StringIO(text.decode(errors="surrogateescape"), newline="")))
    row = rng.choice(rows)
    kind = rng.randrange(4)
    if kind == 0:
        rows.remove(row)
    elif kind == 1:
        rows.insert(rng.randrange(len(rows)), row)
    elif kind == 2:
        del row[rng.randrange(len(row))]
    else:
        row[rng.randrange(len(row))] = str(rng.choice(ODD_VALUES))
    written = io.StringIO(newline="")
    csv.writer(written).writerows(rows)
    return written.getvalue().encode(errors="surrogatepass")


def mutate_checkpoint(content: dict[str, Any], rng: Random) -> dict[str, Any]:
    """A copy of a checkpoint's content, a dict with tensors, with a mutated value or tensor."""
    import torch
    from torch import Tensor

    content = deepcopy(content)
    places = [(holder, key) for holder, key in _places(content) if isinstance(holder[key], Tensor)]
    if rng.random() < 0.5 or not places:
        return dict(mutate_json(content, rng)) if content else content
    holder, key = rng.choice(places)
    tensor = holder[key]
    damages = (
        lambda: tensor.reshape(-1)[:-1].clone(),
        lambda: torch.zeros(3, 5),
        lambda: torch.full_like(tensor, math.nan) if tensor.is_floating_point() else tensor - 10**6,
        lambda: torch.full_like(tensor, math.inf) if tensor.is_floating_point() else -tensor,
        lambda: torch.full_like(tensor, 3e38) if tensor.is_floating_point() else -tensor,
        lambda: -tensor,
        lambda: tensor.to(torch.int8),
        lambda: tensor.to(torch.complex64),
        lambda: tensor.double(),
        lambda: torch.zeros(1).expand(10**12),
        lambda: torch.zeros(2, 2).to_sparse(),
        lambda: tensor.tolist(),
        lambda: None,
    )
    holder[key] = rng.choice(damages)()
    return content


def _places(value: Any) -> Any:
    """Every (holder, key) in lists and dicts, the outermost first."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _places(item)


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
