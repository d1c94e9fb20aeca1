# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cron's fields: what is refused, and what a calendar expression becomes. That both then fire at the same minutes is in tests/integration."""

from __future__ import annotations

import pytest
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._calendar import check_cron, cron_from
from ansible_collections.saasodoo.postgres_pools.plugins.module_utils._errors import PoolsError


@pytest.mark.parametrize(
    ("calendar", "cron"),
    [
        ("*:0/5", "*/5 * * * *"),
        ("*:2/5", "2-59/5 * * * *"),
        ("hourly", "0 * * * *"),
        ("Daily", "0 0 * * *"),
        ("weekly", "0 0 * * 1"),
        ("quarterly", "0 0 1 1,4,7,10 *"),
        ("*-*-* 02:00:00", "0 2 * * *"),
        ("02:00", "0 2 * * *"),
        ("*-*-* 00/6:30", "30 */6 * * *"),
        ("08..18/2:15", "15 8-18/2 * * *"),
        ("*-*-01 03:00", "0 3 1 * *"),
        ("01-01,15 03:05", "5 3 1,15 1 *"),
        ("Mon..Fri 08:00", "0 8 * * 1,2,3,4,5"),
        ("Sat..Sun 08:00", "0 8 * * 0,6"),
        ("Sunday,wed 08:00", "0 8 * * 0,3"),
        ("Mon *-*-* 00:00:00", "0 0 * * 1"),
    ],
)
def test_a_calendar_expression_becomes_crons_fields(calendar: str, cron: str) -> None:
    assert cron_from(calendar) == cron


@pytest.mark.parametrize(
    "calendar",
    [
        "*:*:30",
        "*:*:0/10",
        "2027-01-01 00:00",
        "Mon *-*-13 00:00",
        "*-*~01 00:00",
        "02:00 UTC",
        "*-*-* 02:00 Europe/Berlin",
        "nightly",
        "Fre 02:00",
        "Fri..Mon 02:00",
        "*:*/5",
        "25:00",
        "",
        "*:0/0",
    ],
)
def test_what_cron_cannot_say_is_refused(calendar: str) -> None:
    with pytest.raises(PoolsError) as refused:
        cron_from(calendar)
    assert refused.value.remedy


@pytest.mark.parametrize(
    "cron",
    [
        "* * * * *",
        "*/5 0-6,22 1,15 jan-mar Mon-Fri",
        "0 2 * * 7",
        "59 23 31 12 0-7/2",
        "@hourly",
    ],
)
def test_good_fields_stay_as_they_are(cron: str) -> None:
    assert check_cron("  {0} ".format(cron.replace(" ", "   "))) == cron


@pytest.mark.parametrize(
    ("cron", "says"),
    [
        ("* * * *", "it has 4 fields"),
        ("* * * * * *", "it has 6 fields"),
        ("", "it has 0 fields"),
        ("@reboot", "it has 1 fields"),
        ("60 * * * *", "'60' is no minute"),
        ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "'0' is no day of the month"),
        ("* * * 13 *", "'13' is no month"),
        ("* * * * 8", "'8' is no day of the week"),
        ("* * * * mond", "'mond' is no day of the week"),
        ("jan * * * *", "'jan' is no minute"),
        ("*/0 * * * *", r"'\*/0' is no minute"),
        ("5/10 * * * *", "'5/10' is no minute"),
        ("30-10 * * * *", "'30-10' is no minute"),
        ("1,,2 * * * *", "'' is no minute"),
        ("-5 * * * *", "'-5' is no minute"),
        ("1.5 * * * *", "'1.5' is no minute"),
    ],
)
def test_fields_that_cron_does_not_take_are_refused(cron: str, says: str) -> None:
    with pytest.raises(PoolsError, match=says):
        check_cron(cron)
