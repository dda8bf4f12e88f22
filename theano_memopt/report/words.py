"""Figures in words: shares, differences and bytes, as every reader of a report writes them."""

from __future__ import annotations


def percent(part: int, whole: int) -> str:
    """To three digits; a share that nobody can see is told as such.

    >>> percent(1, 8), percent(1, 10**7), percent(0, 8)
    ('12.5 %', 'under 0.01 %', '0 %')
    """
    if not part or not whole:
        return "0 %"
    return f"{100 * part / whole:.3g} %" if abs(part) >= whole / 10_000 else "under 0.01 %"


def less(ours: int, stock: int) -> str:
    """What was saved, in percent: negative where ours is smaller."""
    return f"{100 * (ours - stock) / stock:+.0f} %" if stock else ""


def against_floor(peak: int, floor: int) -> str:
    """How a peak stands to a floor; every reader of a report says it so.

    >>> against_floor(8, 8), against_floor(13, 8), against_floor(20, 8), against_floor(13, 0)
    ('at the floor', '62 % above the floor', '150 % above the floor', 'above the floor, which is 0 bytes')
    """
    if peak <= floor:
        return "at the floor"
    if not floor:
        return "above the floor, which is 0 bytes"
    above = 100 * (peak - floor) / floor
    return f"{above:.2g} % above the floor" if above < 99.5 else f"{above:,.0f} % above the floor"


def in_bytes(size: int) -> str:
    """With a unit that a person reads at a glance.

    >>> in_bytes(512), in_bytes(7365656), in_bytes(-2048)
    ('512 B', '7.02 MiB', '-2.00 KiB')
    """
    if abs(size) < 1024:
        return f"{size} B"
    power = min(4, (abs(size).bit_length() - 1) // 10)
    return f"{size / 1024**power:.2f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"
