from collections.abc import Iterator
from pathlib import Path
from random import Random


def mutations(folder: Path, chance: Random) -> Iterator[str | None]:
    yield None
