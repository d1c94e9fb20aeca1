# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where this checkout keeps what it makes, for the scripts beside this file. Standard library only: it runs before `make setup`.

The state of the embedded environment lies in `.state` of the checkout, or in $POSTGRES_POOLS_STATE.

* Not root: `.state` is a directory, mode 0700.
* Root: PostgreSQL refuses to run as root and runs as another user, who often cannot reach the checkout (think of /root).
  So `.state` is a link to /var/lib/postgres_pools/<8 hex of the checkout's path>, mode 0711: to be passed through by all, listed by root.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
import sys
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
STATES_OF_ROOT = Path("/var/lib/postgres_pools")


def say(text: str) -> None:
    """Tell the user; stdout is kept for answers that another program reads."""
    print(text, file=sys.stderr, flush=True)


def stop(problem: str) -> NoReturn:
    """End with a message a user can act on."""
    say("%s: %s" % (Path(sys.argv[0]).name, problem))
    raise SystemExit(1)


def is_root() -> bool:
    return os.geteuid() == 0


def unprivileged_user() -> str:
    """Who runs PostgreSQL: the empty string stands for the user who calls."""
    if not is_root():
        return ""
    for name in ("postgres", "nobody"):
        try:
            pwd.getpwnam(name)
        except KeyError:
            continue
        return name
    stop("PostgreSQL refuses to run as root, and there is neither a user postgres nor nobody to run it.")


def blocked_at(path: Path) -> str:
    """The first folder on the way to path that other users cannot pass through, or the empty string."""
    for folder in reversed([path, *path.parents]):
        if folder.is_dir() and not folder.stat().st_mode & stat.S_IXOTH:
            return str(folder)
    return ""


def state_of_root() -> Path:
    return STATES_OF_ROOT / hashlib.sha256(os.fsencode(ROOT)).hexdigest()[:8]


def state_dir() -> Path:
    """Where the state is or would be; makes nothing."""
    override = os.environ.get("POSTGRES_POOLS_STATE")
    return Path(override).absolute() if override else ROOT / ".state"


def make_state_dir() -> Path:
    """The state directory, made where it is missing."""
    state = state_dir()
    if "POSTGRES_POOLS_STATE" in os.environ:
        make_folder(state)
    elif is_root():
        make_state_of_root(state)
    elif state.is_symlink():
        stop("%s was made by root. Run as root, or let root run `make clean` first." % state)
    else:
        make_folder(state)
    refuse_foreign(state)
    blocked = blocked_at(state.resolve()) if is_root() else ""
    if blocked:
        stop(
            "PostgreSQL will run as %s, who cannot pass through %s to the state in %s. Choose another folder."
            % (unprivileged_user(), blocked, state)
        )
    return state


def make_state_of_root(link: Path) -> None:
    target = state_of_root()
    if link.exists() and not link.is_symlink():
        refuse_foreign(link)
        stop("%s is a folder where root keeps a link to %s. Move it away." % (link, target))
    STATES_OF_ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
    STATES_OF_ROOT.chmod(0o755)
    make_folder(target)
    if not link.is_symlink() or os.readlink(link) != str(target):
        link.unlink(missing_ok=True)
        link.symlink_to(target)


def make_folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
    if path.stat().st_uid == os.geteuid():
        path.chmod(0o711 if is_root() else 0o700)


def refuse_foreign(state: Path) -> None:
    owner = state.stat().st_uid
    if owner != os.geteuid():
        stop(
            "the state in %s belongs to %s. Run as that user, or let that user run `make clean` first."
            % (state, user_name(owner))
        )


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "uid %d" % uid
