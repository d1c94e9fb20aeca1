# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fake of the docker command of a Swarm's manager: its secrets are in a file beside it, and every call is written down.

    docker info …    docker secret ls|inspect|create|rm …
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(sys.argv[0]).absolute().parent
STORE = HERE / "secrets.json"


def main(words):
    with open(HERE / "calls", "a") as calls:
        calls.write(" ".join(words) + "\n")
    secrets = json.loads(STORE.read_text()) if STORE.exists() else {}
    if words[0] == "info":
        print("false" if (HERE / "no-manager").exists() else "true")
    elif words[1] == "ls":
        print("\n".join("id-" + name for name in secrets))
    elif words[1] == "inspect":
        print(json.dumps([{"Spec": {"Name": one[3:], "Labels": secrets[one[3:]]["labels"]}} for one in words[2:]]))
    elif words[1] == "create":
        labels = dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "--label")
        secrets[words[-2]] = {"labels": labels, "content": sys.stdin.read()}
    elif words[1] == "rm":
        del secrets[words[2]]
    STORE.touch(mode=0o600)
    STORE.write_text(json.dumps(secrets))


main(sys.argv[1:])
