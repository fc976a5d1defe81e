"""Train and understand image classifiers on nature photographs.

Data walks one way: folder → catalog → pixels → split → loader → augment → model → epoch → run folder → what is made
of it.
"""

__version__ = "0.2.0"
