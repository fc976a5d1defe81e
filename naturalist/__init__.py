"""Train and understand image classifiers on nature photographs.

Data walks one way: folder → catalog → split → cache → loader → augment → model → engine → run folder → evaluate.
"""

__version__ = "0.1.0"
