"""Chance that depends only on (seed, purpose, epoch, step), never on what was drawn before.

So batch order, augmentation and dropout at a given step are the same after a restart, with more workers, or when
another part of the program draws more numbers.
"""

import hashlib

import torch


def derive_seed(seed: int, purpose: str, *position: int) -> int:
    """A 63-bit seed for one purpose at one position (epoch, step, …)."""
    text = f"{seed}/{purpose}/" + "/".join(map(str, position))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, purpose: str, *position: int) -> torch.Generator:
    """A CPU generator for one purpose at one position."""
    return torch.Generator().manual_seed(derive_seed(seed, purpose, *position))
