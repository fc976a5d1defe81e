"""Numbers in sentences, in one style everywhere; what machines read keeps plain numbers."""


def percent(share: float, decimals: int = 1) -> str:
    """A share, 0 to 1: ``46.4 %``."""
    return f"{number(100 * share, decimals)} %"


def points(difference: float) -> str:
    """A difference of two shares: ``−1.0 points``."""
    return f"{number(100 * difference)} points"


def number(value: float, decimals: int = 1) -> str:
    """A number with a true minus, and without one where it rounds to zero."""
    return f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−")


def p_value(value: float) -> str:
    """``p = 0.039``; of very small ones only that they are."""
    return "p less than 0.0001" if value < 0.0001 else f"p = {value:.2g}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """``1 epoch``, ``1,200 epochs``."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def duration(seconds: float) -> str:
    """What has passed: ``0.4 s``, ``58 s``, ``1 min 05 s``, ``2 h 03 min``."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def roughly(seconds: float) -> str:
    """What is still to come, which nobody knows better: ``45 s``, ``12 min``, ``3.2 h``, ``2 days``."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.0f} days"
