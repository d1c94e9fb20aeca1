# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The package as others get it, and the examples of its pages."""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path
from typing import Any, Dict, List

import pytest
import yaml
from awx_server import TOKEN, Awx, Ending
from signup_service import Instance, Instances, SignupService, SwarmServices

from postgres_pools_client import AwxPools, Connection, ProvisioningFailed

CLIENT = Path(__file__).resolve().parents[1]
ROOT = CLIENT.parents[1]
PAGES = [CLIENT / "README.md", ROOT / "docs" / "client.md"]
ALLOCATED: Dict[str, Any] = {
    "status": "allocated",
    "instance_id": "0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90",
    "server": "postgres-pool-1",
    "host": "postgres-pool-1",
    "port": 5432,
    "database": "odoo_a",
    "user": "odoo_a_user",
    "connection_secret": "odoo-acme-database.1a2b3c",
}


def blocks(page: Path) -> List[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_with_awx_run(page: Path, awx: Awx, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(AwxPools.__init__.__kwdefaults__, "poll_seconds", 0)
    monkeypatch.setenv("AWX_URL", awx.url)
    monkeypatch.setenv("AWX_TOKEN", TOKEN)
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    (example,) = [block for block in blocks(page) if "AwxPools" in block]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(example, str(page), "exec"), {})
    assert "postgres-pool-1" in said.getvalue()
    assert len(awx.launches) == 1


def test_every_example_is_python() -> None:
    found = [block for page in PAGES for block in blocks(page)]
    assert len(found) == 3
    for block in found:
        compile(block, "a page", "exec")


def test_the_readme_names_every_call_and_exception() -> None:
    import postgres_pools_client

    readme = PAGES[0].read_text()
    public = [name for name in dir(postgres_pools_client.PostgresPools) if not name.startswith("_")]
    names = set(public) - {"close"} | set(postgres_pools_client.__all__) - {"Totals"}
    assert sorted(name for name in names if "`{0}".format(name) not in readme) == []


def test_a_wheel_has_the_types_and_imports_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    subprocess.run(["cp", "-r", str(CLIENT), str(source)], check=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    build = [
        *pip,
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        str(tmp_path),
        str(source),
    ]
    built = subprocess.run(build, check=False, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = tmp_path.glob("saasodoo_postgres_pools_client-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "postgres_pools_client/py.typed" in names
    assert not [
        name for name in names if not name.startswith(("postgres_pools_client/", "saasodoo_postgres_pools_client-"))
    ]
    seen = subprocess.run(
        [sys.executable, "-c", "import postgres_pools_client as p; print(p.__file__, len(p.__all__))"],
        env=dict(os.environ, PYTHONPATH=str(wheel)),
        cwd=str(tmp_path),
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert str(wheel) in seen


# --- the example service, by AWX


def service(awx: Awx, pools: AwxPools, tmp_path: Path) -> SignupService:
    return SignupService(
        pools, Instances(str(tmp_path / "instances.sqlite")), SwarmServices("odoo:19", "saasodoo-network")
    )


def test_a_signup_by_awx_makes_a_service_that_mounts_its_secret(
    awx: Awx, pools: AwxPools, tmp_path: Path, capsys: Any
) -> None:
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    service(awx, pools, tmp_path).sign_up(str(uuid.uuid4()), "standard")
    asked = awx.launches[0].body["extra_vars"]
    assert asked["connection_secret"] == "odoo-{0}-database".format(asked["instance_id"])
    said = capsys.readouterr().out
    assert "--secret source=odoo-acme-database.1a2b3c,target=database,mode=0400" in said
    assert said.startswith("docker service create --name odoo-{0} ".format(asked["instance_id"]))


def test_a_signup_that_failed_is_taken_up_again_with_the_same_id(
    awx: Awx, pools: AwxPools, tmp_path: Path, capsys: Any
) -> None:
    bad = {"event": "runner_on_failed", "event_data": {"res": {"msg": "no room anywhere"}}}
    awx.template("allocate", Ending("failed", events=[bad]), Ending(artifacts=ALLOCATED))
    signups = service(awx, pools, tmp_path)
    with pytest.raises(ProvisioningFailed, match="no room anywhere"):
        signups.sign_up(str(uuid.uuid4()), "standard")
    (left,) = signups.instances.unfinished()
    assert isinstance(left, Instance)
    assert signups.resume() == ["http://odoo-{0}:8069/".format(left.instance_id)]
    assert signups.instances.unfinished() == []
    assert [each.body["extra_vars"]["instance_id"] for each in awx.launches] == [left.instance_id] * 2


def test_the_templates_of_the_collection_let_through_what_is_sent(awx: Awx, pools: AwxPools) -> None:
    """Those that its role awx makes."""
    who, somebody = ALLOCATED["instance_id"], str(uuid.uuid4())
    row = {"name": "a", "server_type": "shared", "status": "active"}
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    awx.template("provision_dedicated", Ending(artifacts={"server": row}))
    awx.template("pools", Ending(artifacts={"servers": [row], "totals": {}}))
    awx.template("change_plan", Ending(artifacts={"status": "changed", "instance_id": who}))
    awx.template("release", Ending(artifacts={"instance_ids": [who]}))
    for wait in (True, False):
        pools.allocate_database(
            who,
            somebody,
            "free",
            require_dedicated=True,
            wait=wait,
            connection_secret="a",
            application={"service": "a"},
            timeout=60,
        )
    pools.provision_dedicated_server(who, somebody, "premium")
    pools.get_pool_status(server="a", status="active", server_type="shared")
    pools.change_plan(who, "premium", require_dedicated=False, application={"service": "a"})
    pools.release(who, keep_days=1)
    known = yaml.safe_load((ROOT / "roles" / "awx" / "vars" / "main" / "job_templates.yml").read_text())
    questions = yaml.safe_load((ROOT / "roles" / "awx" / "vars" / "main" / "questions.yml").read_text())
    for each in awx.launches:
        name = awx.templates[int(each.path.split("/")[-3])]["name"][len("postgres-pools-") :].replace("-", "_")
        template = known["_awx_all_job_templates"][name]
        asked = {question["variable"] for question in template["survey"]}
        for variable, value in each.body["extra_vars"].items():
            assert variable in asked or template.get("variables"), "{0} takes no {1}".format(name, variable)
            choices = questions["_awx_questions"][variable].get("choices") if variable in asked else None
            assert "_yes_no" not in str(choices) or value in ("true", "false")


def test_a_connection_is_a_value() -> None:
    one = Connection("i", "s", "h", 1, "d", "u", password="p")
    with pytest.raises(AttributeError):
        one.password = "q"  # type: ignore[misc]
