# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a report: each replaced whole, and readable by the web server and the collector that hand them out."""

from __future__ import annotations

import os
import re
import tempfile
from typing import Any, Dict, Mapping, Tuple

from . import _metrics, _report_page
from ._errors import PoolsError

PAGE, METRICS = "index.html", "postgres_pools.prom"
MODE = 0o644
# When a report was made is no news by itself.
_MADE_AT = re.compile(r'<time id="generated".*?</time>|^{0} .*$'.format(_metrics.TIMESTAMP), re.MULTILINE)


def contents(fleet: Mapping[str, Any], directory: str, metrics_directory: str) -> Dict[str, str]:
    """What each file is to hold, by its path."""
    return {
        os.path.join(directory, PAGE): _report_page.render(fleet),
        os.path.join(metrics_directory, METRICS): _metrics.render(fleet),
    }


def differs(path: str, wanted: str) -> bool:
    """Whether the file says something else than *wanted*, or not to everybody; the time of the report does not count."""
    try:
        with open(path, encoding="utf-8") as stream:
            found = stream.read()
            mode = os.fstat(stream.fileno()).st_mode & 0o777
    except (OSError, ValueError):
        return True
    return mode != MODE or _MADE_AT.sub("", found) != _MADE_AT.sub("", wanted)


def write(path: str, content: str) -> None:
    """A reader finds the old content or the new, never half of it.

    :raises PoolsError: it cannot be written.
    """
    folder = os.path.dirname(path) or "."
    try:
        if not os.path.isdir(folder):
            os.makedirs(folder)
            # Whatever the umask is: the files are for others to read.
            os.chmod(folder, 0o755)  # noqa: S103
        # The collector reads *.prom: a name without that ending stays unseen until it is moved.
        descriptor, unfinished = tempfile.mkstemp(prefix="." + os.path.basename(path) + "-", suffix=".new", dir=folder)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(content)
                stream.flush()
                os.fchmod(stream.fileno(), MODE)
                os.fsync(stream.fileno())
            os.replace(unfinished, path)
        except BaseException:
            os.unlink(unfinished)
            raise
    except OSError as error:
        raise PoolsError(
            "{0} cannot be written: {1}.".format(path, error.strerror or error),
            "Give a directory that this user may write to.",
        ) from error


def refuse_unwritable(path: str) -> None:
    """:raises PoolsError: it could not be written; found without writing."""
    folder = os.path.dirname(path) or "."
    while not os.path.lexists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        raise PoolsError("{0} cannot be written: {1} is no directory that this user may write to.".format(path, folder))


def made(fleet: Mapping[str, Any], directory: str, metrics_directory: str, check_mode: bool) -> Tuple[bool, Dict[str, Any]]:
    """Write what is wanted; whether anything but the time is new, and the two paths."""
    wanted = contents(fleet, directory, metrics_directory)
    for path in wanted:
        refuse_unwritable(path)
    changed = [path for path, content in wanted.items() if differs(path, content)]
    if not check_mode:
        for path, content in wanted.items():
            write(path, content)
    page, metrics = wanted
    return bool(changed), {"page": page, "metrics": metrics, "written": changed}
