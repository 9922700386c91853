"""Human quantities to integers and back: MiB, seconds, micro-dollars."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from agent.errors import UnitError

MIB = 1024 * 1024
MS_PER_HOUR = 3_600_000
MICROS = 1_000_000


#: bytes of each unit, in small letters; one letter alone counts in thousands, as Dask reads it ("4k", "4 kB", "4 KiB")
_BYTES = {"": 1, "b": 1} | {
    unit: base**power
    for power, letter in enumerate("kmgtp", start=1)
    for unit, base in ((letter, 1000), (f"{letter}b", 1000), (f"{letter}i", 1024), (f"{letter}ib", 1024))
}
#: seconds of each unit, in small letters
_SECONDS = {
    name: seconds
    for names, seconds in (
        ("ns nanosecond nanoseconds", 1e-9),
        ("us microsecond microseconds", 1e-6),
        ("ms millisecond milliseconds", 1e-3),
        ("s second seconds", 1),
        ("m min mins minute minutes", 60),
        ("h hour hours", 3_600),
        ("d day days", 86_400),
        ("w week weeks", 604_800),
    )
    for name in names.split()
} | {"": 1}
_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)([a-z]*)", re.ASCII)


def _quantity(text: str, units: Mapping[str, float]) -> float:
    """The number of a text like "1.5 h" times its unit. Raises ValueError, KeyError.

    Dask's own reader would do, but importing Dask costs every command a tenth of a second.
    """
    found = _QUANTITY.fullmatch(text.replace(" ", "").lower())
    if found is None:
        raise ValueError("no number with a unit")
    return float(found[1]) * units[found[2]]


def memory_mib(value: str | int) -> int:
    """MiB of `"16 GiB"`; an integer counts MiB already. Raises UnitError unless positive."""
    try:
        mib = value if isinstance(value, int) else math.ceil(int(_quantity(value, _BYTES)) / MIB)
    except (ValueError, OverflowError, TypeError, KeyError, AttributeError) as error:
        raise UnitError(f"memory {value!r} cannot be read; write for example '16 GiB' or 512 (MiB)") from error
    if isinstance(mib, bool) or mib <= 0:
        raise UnitError(f"memory {value!r} must be more than nothing")
    return mib


def duration_ms(value: str | int | float) -> int:
    """Milliseconds of `"20 min"`; a number counts seconds. Raises UnitError unless finite and not negative."""
    try:
        seconds = float(value) if isinstance(value, int | float) else _quantity(value, _SECONDS)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnitError(
            f"duration {value!r} cannot be read; write for example '20 min', '90s' or 90 (seconds)"
        ) from error
    if isinstance(value, bool) or not math.isfinite(seconds) or seconds < 0:
        raise UnitError(f"duration {value!r} must be a finite time, not negative")
    return round(seconds * 1000)


def usd_micros(value: str | int | float) -> int:
    """Micro-dollars of `"$1.50"` or 1.5 (dollars). Raises UnitError unless finite and not negative."""
    try:
        amount = Decimal(str(value).strip().lstrip("$").replace(",", ""))
    except InvalidOperation as error:
        raise UnitError(f"amount {value!r} cannot be read; write for example '$1.50'") from error
    if isinstance(value, bool) or not amount.is_finite() or amount < 0:
        raise UnitError(f"amount {value!r} must be a finite sum of dollars, not negative")
    return int((amount * MICROS).to_integral_value())


def show_usd(micros: int) -> str:
    """`$0.0021`: four digits below a dollar, two above."""
    dollars = micros / MICROS
    return (
        f"-{show_usd(-micros)}"
        if micros < 0
        else f"${dollars:,.2f}"
        if dollars >= 1
        else f"${dollars:.5f}"
        if dollars < 0.01
        else f"${dollars:.4f}"
    )


def show_ms(ms: int) -> str:
    """`340 ms`, `12.4 s`, `3 min 20 s`, `2 h 05 min`."""
    if ms < 1000:
        return f"{ms} ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f} s"
    if ms < MS_PER_HOUR:
        return f"{ms // 60_000} min {ms % 60_000 // 1000:02d} s"
    return f"{ms // MS_PER_HOUR} h {ms % MS_PER_HOUR // 60_000:02d} min"


def mib_of(size: int) -> int:
    """Bytes in MiB, rounded up."""
    return -(-size // MIB)


def show_mib(mib: int) -> str:
    """`512 MiB`, `16 GiB`."""
    return f"{mib} MiB" if mib < 1024 else f"{mib / 1024:g} GiB"


def cost_micros(usd_micros_per_hour: int, ms: int | float) -> int:
    """Micro-dollars of `ms` milliseconds at a price per hour, rounded to the nearest."""
    return round(usd_micros_per_hour * ms / MS_PER_HOUR)
