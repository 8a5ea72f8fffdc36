"""Numbers of a training in words a person reads: spans of time, moments, counts."""

from __future__ import annotations

import datetime
import math

from PySide6.QtCore import QCoreApplication, QDateTime, QLocale

NOTHING = "–"


def _tr(text: str) -> str:
    return QCoreApplication.translate("Train", text)


def duration(seconds: float) -> str:
    """A span of time, as exact as it can be known: "40 s", "12 min", "3 h 20 min", "2 days"."""
    if not math.isfinite(seconds):
        return NOTHING
    if seconds < 90:
        return _tr("{0} s").format(max(0, round(seconds)))
    minutes = round(seconds / 60)
    if minutes < 90:
        return _tr("{0} min").format(minutes)
    hours, rest = divmod(minutes, 60)
    if hours < 48:
        rest -= rest % 5 if hours >= 5 else 0
        return _tr("{0} h {1} min").format(hours, rest) if rest else _tr("{0} h").format(hours)
    return _tr("{0} days").format(round(hours / 24))


def short(value: float) -> str:
    """A number with three digits that matter; a dash where there is none."""
    return QLocale().toString(value, "g", 3) if math.isfinite(value) else NOTHING


def count(value: int) -> str:
    """A whole number with its thousands apart."""
    return QLocale().toString(value)


def moment(when: float) -> str:
    """A time of the past, as seconds since 1970: "today 14:03", "yesterday 9:10", or a date."""
    made = QDateTime.fromMSecsSinceEpoch(round(when * 1000))
    ago = (datetime.date.today() - datetime.date.fromtimestamp(when)).days
    clock = QLocale().toString(made.time(), QLocale.FormatType.ShortFormat)
    if ago in (0, 1):
        return (_tr("yesterday {0}") if ago else _tr("today {0}")).format(clock)
    return QLocale().toString(made, QLocale.FormatType.ShortFormat)
