"""``python -m naturalist VERB``; see :mod:`naturalist.cli`."""

from naturalist.cli import console

if __name__ == "__main__":
    console()
