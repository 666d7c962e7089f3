"""Numbers and texts in readable form."""

from __future__ import annotations

import codecs
import math
import os
import shlex
import subprocess
import unicodedata

TURNING = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that change the writing direction: text after them may look like something else."""


def readable_size(count: int) -> str:
    """Return a number of bytes in readable form: ``readable_size(243_860_896) == '243.9 MB'``."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds as text: ``8 s``, ``1 min 20 s``, ``3 h 05 min``, ``4 days``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole / 86400:.1f} days"


def seconds(value: float) -> str:
    """A short time, to three digits in a suitable unit: µs, ms or s."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= 0.9995 * size:
            return f"{three_digits(value / size)} {unit}"
    return f"{three_digits(value * 1e6)} µs"


def long_time(value: float) -> str:
    """A long time, to three digits in minutes, hours or days."""
    unit, size = next((pair for pair in (("days", 86400.0), ("h", 3600.0)) if value >= 2 * pair[1]), ("min", 60.0))
    return f"{three_digits(value / size)} {unit}"


def milliseconds(value: float) -> str:
    """Seconds as milliseconds in about three digits, without the unit: ``"0.12"``, ``"12.3"``, ``"1,230"``."""
    value *= 1000
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def amount(value: float, unit: str) -> str:
    """A number with k, M, G or T (powers of 1,000) before its unit."""
    for sign, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{three_digits(value / size)} {sign}{unit}"
    return f"{three_digits(value)} {unit}"


def three_digits(value: float) -> str:
    """At least three digits, and all before the decimal point."""
    if value >= 99.95 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def percent(fraction: float, digits: int = 1) -> str:
    """Return a fraction as text, ``0.031`` as ``3.1 %`` with a space that does not break."""
    return f"{100 * fraction:.{digits}f}\N{NO-BREAK SPACE}%" if math.isfinite(fraction) else "–"


def plural(count: float, word: str) -> str:
    """A number with its noun: ``1 column``, ``2 columns``, ``3 classes``."""
    ending = "es" if word.endswith("s") else "s"
    return f"{count:,} {word}{'' if count == 1 else ending}"


def clip(text: str, longest: int) -> str:
    """Return a text; if it is too long, its end is replaced by …."""
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def plain(text: str, keep: str = "") -> str:
    """Return a text that is safe to show, draw and encode anywhere, whatever its source.

    Class names come from folders and archives, messages from files: a control character in them could move the
    terminal's cursor, change its title or start a new line. Control characters, line ends, marks that change the
    writing direction and lone surrogates are written as Python escapes: ``\\x1b``, ``\\n``, ``\\u202e``. Applying this
    twice changes nothing more.

    Args:
        text: any text
        keep: control characters that may stay, such as ``"\\n"``
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or c.isprintable() or not _obeyed(c) else _escape(c) for c in text)


def _obeyed(character: str) -> bool:
    """Whether a terminal would act on a character, or could not show it."""
    kind = unicodedata.category(character)
    nothing = kind == "Cn" and ord(character) & 0xFFFE == 0xFFFE
    return kind in ("Cc", "Cs", "Zl", "Zp") or nothing or character in TURNING


def _escape(character: str) -> str:
    known = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(character)
    code = ord(character)
    return known or (f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")


def shell(*words: object) -> str:
    """Return a command for users to type or copy, with every word quoted if the shell needs it.

    Args:
        words: texts; a path that begins with ``-`` is written as ``./-…``, which is not an option
    """
    texts = [
        f"./{word}" if isinstance(word, os.PathLike) and str(word).startswith("-") else str(word) for word in words
    ]
    if os.name == "nt":
        return subprocess.list2cmdline(texts)
    return " ".join(shlex.quote(text) if plain(text) == text else _ansi_c(text) for text in texts)


def _ansi_c(text: str) -> str:
    """A word as ``$'…'``, with the bytes of what cannot be shown."""
    characters = (
        "".join(f"\\x{byte:02x}" for byte in os.fsencode(c)) if plain(c) != c else f"\\{c}" if c in "\\'" else c
        for c in text
    )
    return f"$'{''.join(characters)}'"


LIKE = {"×": "x", "–": "-", "—": "-", "−": "-", "→": "->", "·": "*", "µ": "u", "α": "alpha", "ε": "epsilon", "η": "eta",
        "√": "sqrt", "≤": "<=", "≥": ">=", "’": "'", "“": '"', "”": '"'}  # fmt: skip
"""Replacements for our own symbols where a terminal or file does not support all of Unicode."""


def _replacement(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    known = (
        LIKE.get(c) or unicodedata.normalize("NFKD", c).encode("ascii", "ignore").decode() or "?"
        for c in error.object[error.start : error.end]
    )
    return "".join(known), error.end


LIKENESS = "minialex.likeness"
"""The name of an encoding error handler: unencodable characters become similar ones, or ``?``."""

codecs.register_error(LIKENESS, _replacement)
