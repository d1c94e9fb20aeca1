# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When a job runs: cron's five fields checked, and made from a calendar expression of systemd where the two can say the same. Pure."""

from __future__ import annotations

import re
from typing import List, NamedTuple, Tuple

from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# Everything that either kind of expression is made of: no line break, no quote, no "%", which cron would take for one.
LETTERS = re.compile(r"[A-Za-z0-9*@,./:~ _+-]+")
# @reboot is none of them: it is no time.
CRON_NAMES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
SYSTEMD_NAMES = {
    "minutely": "*-*-* *:*",
    "hourly": "*-*-* *:00",
    "daily": "*-*-* 00:00",
    "weekly": "Mon *-*-* 00:00",
    "monthly": "*-*-01 00:00",
    "quarterly": "*-01,04,07,10-01 00:00",
    "semiannually": "*-01,07-01 00:00",
    "yearly": "*-01-01 00:00",
    "annually": "*-01-01 00:00",
}


class Field(NamedTuple):
    name: str
    low: int
    high: int
    # The name at place n stands for low + n.
    names: Tuple[str, ...] = ()


FIELDS = (
    Field("minute", 0, 59),
    Field("hour", 0, 23),
    Field("day of the month", 1, 31),
    Field("month", 1, 12, MONTHS),
    Field("day of the week", 0, 7, DAYS),
)


def check_cron(expression: str) -> str:
    """The expression with single spaces, or a refusal: cron itself only tells its log, and leaves out the whole file."""
    parts = expression.split()
    if len(parts) == 1 and parts[0] in CRON_NAMES:
        return parts[0]
    if len(parts) != len(FIELDS):
        raise PoolsError(
            "{0!r} is no time for cron: it has {1} fields.".format(expression, len(parts)),
            "Give minute, hour, day of the month, month and day of the week, as in '*/5 * * * *', or one of {0}.".format(", ".join(CRON_NAMES)),
        )
    for field, text in zip(FIELDS, parts):
        for entry in text.split(","):
            _check_entry(expression, field, entry)
    return " ".join(parts)


def _check_entry(expression: str, field: Field, entry: str) -> None:
    # A step stands behind "*" or a range only; not every cron takes it behind a single number.
    found = re.fullmatch(r"(?:(\*)|([A-Za-z]+|\d+)(?:-([A-Za-z]+|\d+))?)(?:/(\d+))?", entry)
    good = found is not None
    if found:
        star, first, last, step = found.groups()
        good = step is None or (int(step) > 0 and bool(star or last))
        if not star:
            numbers = [_number(field, one) for one in (first, last) if one is not None]
            good = good and all(field.low <= number <= field.high for number in numbers) and numbers == sorted(numbers)
    if not good:
        raise PoolsError(
            "{0!r} is no time for cron: {1!r} is no {2}.".format(expression, entry, field.name),
            "It goes from {0} to {1}: '*', a number, a range 'a-b', each with a step '/n' but a single number, or several with commas.".format(
                field.low, field.high
            ),
        )


def _number(field: Field, text: str) -> int:
    """-1 for what is none."""
    if text.isdigit():
        return int(text)
    return field.low + field.names.index(text.lower()) if text.lower() in field.names else -1


def cron_from(calendar: str) -> str:
    """The five fields that say the same as a calendar expression of systemd; refused where cron cannot say it."""
    rest = SYSTEMD_NAMES.get(calendar.lower(), calendar).split()
    weekday = rest.pop(0) if rest and rest[0][:1].isalpha() else ""
    date = rest.pop(0) if rest and "-" in rest[0] else "*-*-*"
    time = rest.pop(0) if rest and ":" in rest[0] else "00:00"
    units, clock = date.split("-"), time.split(":")
    year = units.pop(0) if len(units) == 3 else "*"
    seconds = clock.pop() if len(clock) == 3 else "00"
    if not calendar.strip() or rest or year != "*" or len(units) != 2 or len(clock) != 2 or seconds not in ("0", "00"):
        raise _untold(calendar)
    if weekday and units[1] != "*":
        # Of the two, systemd wants both, cron one.
        raise _untold(calendar)
    fields = [
        _field(calendar, field, text) for field, text in zip(FIELDS, (clock[1], clock[0], units[1], units[0]))
    ]
    return check_cron(" ".join([*fields, _weekdays(calendar, weekday)]))


def _field(calendar: str, field: Field, text: str) -> str:
    entries = []
    for entry in text.split(","):
        found = re.fullmatch(r"(?:(\*)|(\d+)(?:\.\.(\d+))?(?:/(\d+))?)", entry)
        if not found:
            raise _untold(calendar)
        star, first, last, step = found.groups()
        if star:
            entries.append("*")
        elif step:
            from_the_first = last is None and int(first) == field.low
            span = "*" if from_the_first else "{0}-{1}".format(int(first), int(last or field.high))
            entries.append("{0}/{1}".format(span, int(step)))
        else:
            entries.append("{0}-{1}".format(int(first), int(last)) if last else str(int(first)))
    return ",".join(entries)


def _weekdays(calendar: str, text: str) -> str:
    if not text:
        return "*"
    # As systemd counts, so that Sat..Sun is a range.
    order = [*DAYS[1:], DAYS[0]]
    numbers: List[int] = []
    for entry in text.rstrip(",").lower().split(","):
        ends = [day[:3] for day in entry.split("..")]
        if len(ends) > 2 or any(day not in order for day in ends):
            raise _untold(calendar)
        numbers += range(order.index(ends[0]), order.index(ends[-1]) + 1)
    return ",".join(str(number) for number in sorted({(number + 1) % 7 for number in numbers})) or "none"


def _untold(calendar: str) -> PoolsError:
    return PoolsError(
        "The calendar expression {0!r} cannot be put into cron's five fields.".format(calendar),
        "Give the job its own cron: minute, hour, day of the month, month and day of the week.",
    )
