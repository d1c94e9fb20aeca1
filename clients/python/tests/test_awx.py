# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client against a server that behaves as AWX's job API, well and badly."""

from __future__ import annotations

import datetime
import email.utils
import socket
import ssl
import threading
import uuid
from typing import Any, Dict, List

import pytest
from asking import Time, asking
from awx_server import TOKEN, Awx, Ending

from postgres_pools_client import (
    AwxPools,
    Connection,
    JobFailed,
    PlanChange,
    PoolsError,
    Provisioning,
    ProvisioningFailed,
    Refused,
    Released,
    Server,
    TimedOut,
    Unavailable,
)

INSTANCE = "0b6c5c1e-4a5f-4a7e-9c58-2f3d1e6a7b90"
CUSTOMER = "7d1f0f4e-2f0b-4a38-8e53-7a5b1c9d2e10"
WHO = (INSTANCE, CUSTOMER, "standard")
ALLOCATED: Dict[str, Any] = {
    "status": "allocated",
    "instance_id": INSTANCE,
    "server": "postgres-pool-1",
    "host": "postgres-pool-1",
    "port": 5432,
    "database": "odoo_7d1f0f4e2f0b4a38_0b6c5c1e",
    "user": "odoo_7d1f0f4e2f0b4a38_0b6c5c1e_user",
    "something_newer": True,
}
PROVISIONING = {"status": "provisioning", "retry_after": 10, "allocations": []}
LAUNCH = r"POST .*/launch/"
JOB = r"GET .*/jobs/\d+/"


def failing(message: str, **more: Any) -> Dict[str, Any]:
    return {"event": "runner_on_failed", "event_data": dict({"task": "A task", "res": {"msg": message}}, **more)}


# --- it goes well


def test_a_database_is_given(awx: Awx, pools: AwxPools, time_: Time) -> None:
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    answer = pools.allocate_database(*WHO)
    assert answer == Connection(
        INSTANCE, "postgres-pool-1", "postgres-pool-1", 5432, ALLOCATED["database"], ALLOCATED["user"]
    )
    assert answer.arguments() == {
        "host": "postgres-pool-1",
        "port": 5432,
        "dbname": ALLOCATED["database"],
        "user": ALLOCATED["user"],
    }
    assert [each.body for each in awx.launches] == [
        {"extra_vars": {"instance_id": INSTANCE, "customer_id": CUSTOMER, "plan_tier": "standard"}}
    ]
    # pending at the launch; waiting, running, successful.
    assert awx.count("GET", r"/jobs/\d+/$") == 3
    assert time_.slept == [2, 2, 2]


def test_what_is_asked_reaches_the_template(awx: Awx, pools: AwxPools) -> None:
    awx.template("allocate", Ending(artifacts=dict(ALLOCATED, connection_secret="odoo-acme.1a2b")))
    answer = pools.allocate_database(*WHO, require_dedicated=True, wait=False, connection_secret="odoo-acme")
    assert isinstance(answer, Connection)
    assert (answer.secret, answer.password) == ("odoo-acme.1a2b", None)
    asked = awx.launches[0].body["extra_vars"]
    assert asked["require_dedicated"] == "true"
    assert asked["wait"] == "false"
    assert asked["connection_secret"] == "odoo-acme"


def test_every_verb(awx: Awx, pools: AwxPools) -> None:
    row = {
        "name": "postgres-dedicated-0b6c5c1e",
        "server_type": "dedicated",
        "status": "active",
        "host": "h",
        "port": 5432,
        "max_instances": 1,
    }
    awx.template("provision_dedicated", Ending(artifacts={"status": "active", "server": row}))
    awx.template(
        "pools",
        Ending(
            artifacts={"servers": [row], "totals": {"pools": 0, "dedicated": 1}, "growth": {"full_at": "2027-02-25"}}
        ),
    )
    awx.template(
        "change_plan",
        Ending(
            artifacts={
                "status": "moved",
                "instance_id": INSTANCE,
                "source": "a",
                "server": "b",
                "downtime_seconds": 3.5,
            }
        ),
    )
    awx.template("release", Ending(artifacts={"status": "released", "instance_ids": [INSTANCE], "dropped": 1}))
    server = pools.provision_dedicated_server(INSTANCE, CUSTOMER, "premium")
    assert server == Server("postgres-dedicated-0b6c5c1e", "dedicated", "active", "h", 5432, max_instances=1)
    status = pools.get_pool_status(server_type="dedicated")
    assert (status.servers, status.totals.dedicated, status.full_at) == ((server,), 1, "2027-02-25")
    assert pools.change_plan(INSTANCE, "premium") == PlanChange(INSTANCE, "moved", "b", "a", downtime_seconds=3.5)
    assert pools.release(INSTANCE, keep_days=0) == Released((INSTANCE,), 1)
    assert awx.launches[1].body == {"extra_vars": {"server_type": "dedicated"}}
    assert awx.launches[3].body == {"extra_vars": {"instance_id": INSTANCE, "keep_days": 0}}


def test_forty_threads_share_one_client(awx: Awx, time_: Time) -> None:
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    found: List[Any] = []
    with asking(awx, time_) as pools:
        ids = [str(uuid.uuid4()) for _each in range(40)]
        threads = [
            threading.Thread(target=lambda one=one: found.append(pools.allocate_database(one, CUSTOMER, "free")))
            for one in ids
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == len(awx.launches) == len(awx.jobs) == 40
    assert sorted(each.body["extra_vars"]["instance_id"] for each in awx.launches) == sorted(ids)


# --- waiting


def test_a_server_in_the_making_is_waited_for(awx: Awx, pools: AwxPools, time_: Time) -> None:
    awx.template(
        "allocate", Ending(artifacts=PROVISIONING), Ending(artifacts=PROVISIONING), Ending(artifacts=ALLOCATED)
    )
    assert pools.wait_for_database(*WHO).server == "postgres-pool-1"
    assert len(awx.launches) == 3
    assert time_.slept.count(10) == 2


def test_who_does_not_wait_is_told_when_to_ask_again(awx: Awx, pools: AwxPools) -> None:
    awx.template("allocate", Ending(artifacts=PROVISIONING))
    assert pools.allocate_database(*WHO, wait=False) == Provisioning(INSTANCE, 10)
    assert len(awx.launches) == 1


def test_waiting_ends_when_its_time_is_over(awx: Awx, pools: AwxPools, time_: Time) -> None:
    awx.template("allocate", Ending(artifacts=PROVISIONING))
    began = time_.now
    with pytest.raises(TimedOut, match="no server yet after 60 s"):
        pools.wait_for_database(*WHO, timeout=60)
    assert time_.now - began <= 60
    # 6 s for each job and 10 between: there is no time left for a fifth.
    assert len(awx.launches) == 4
    # The playbook waits no longer than its caller.
    assert [each.body["extra_vars"]["wait_timeout"] for each in awx.launches] == [60, 44, 28, 12]


def test_a_job_that_takes_too_long_is_left_to_go_on(awx: Awx, pools: AwxPools, time_: Time) -> None:
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    awx.stuck = True
    with pytest.raises(TimedOut, match="Job 100 of AWX") as raised:
        pools.allocate_database(*WHO, timeout=30)
    assert raised.value.job == 100
    assert sum(time_.slept) == 30
    assert awx.count("POST", "cancel") == 0


def test_a_change_of_plan_waits_for_its_server(awx: Awx, pools: AwxPools, time_: Time) -> None:
    awx.template(
        "change_plan", Ending(artifacts=PROVISIONING), Ending(artifacts={"status": "moved", "instance_id": INSTANCE})
    )
    assert pools.change_plan(INSTANCE, "premium", require_dedicated=True).status == "moved"
    assert [each.body["extra_vars"]["require_dedicated"] for each in awx.launches] == ["true", "true"]
    assert time_.slept.count(10) == 1


# --- a playbook fails


@pytest.mark.parametrize(
    ("ending", "says"),
    [
        (
            Ending("failed", events=[failing("no room on postgres-pool-1: make another")]),
            "^no room on postgres-pool-1: make another$",
        ),
        # What it said after tidying up is its last word; what it ignored is not.
        (
            Ending(
                "failed", events=[failing("first"), failing("returned to a: first"), failing("odd", ignore_errors=True)]
            ),
            "^returned to a: first$",
        ),
        (
            Ending("failed", events=[failing("", res={"argument_errors": ["plan_tier is missing"]})]),
            "^plan_tier is missing$",
        ),
        (
            Ending("failed", events=[failing("", res={"censored": "the output has been hidden"})]),
            "'A task' failed; what it said is hidden",
        ),
        (
            Ending("failed", events=[{"event": "runner_on_unreachable", "event_data": {"res": {"msg": "no route"}}}]),
            "^no route$",
        ),
        (Ending("failed", explanation="Job terminated due to timeout"), "^Job terminated due to timeout$"),
        (Ending("error", traceback="Traceback: no space left"), "no space left"),
        (
            Ending("failed", output="\n".join(map(str, range(30))) + "\n\x1b[0;31mERROR! no such playbook\x1b[0m"),
            "^11\n.*\nERROR! no such playbook$",
        ),
        (Ending("failed"), "^Job 100 of AWX ended as failed$"),
        (Ending("canceled"), "^Job 100 of AWX ended as canceled"),
        (Ending("successful"), "told no result"),
    ],
)
def test_a_failure_is_told_in_the_playbooks_own_words(awx: Awx, pools: AwxPools, ending: Ending, says: str) -> None:
    awx.template("allocate", ending)
    with pytest.raises(ProvisioningFailed, match="(?s)" + says) as raised:
        pools.wait_for_database(*WHO)
    assert (raised.value.playbook, raised.value.job) == ("allocate", 100)
    # It failed for a reason that a second launch would meet as well.
    assert len(awx.launches) == 1


def test_a_failure_of_a_change_is_no_failure_of_provisioning(awx: Awx, pools: AwxPools) -> None:
    awx.template("change_plan", Ending("failed", events=[failing("back on postgres-pool-1")]))
    with pytest.raises(JobFailed, match="back on") as raised:
        pools.change_plan(INSTANCE, "premium")
    assert not isinstance(raised.value, ProvisioningFailed)


# --- AWX refuses


def test_a_wrong_token_is_told_at_once(awx: Awx, pools: AwxPools, time_: Time) -> None:
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    awx.token = "another"
    with pytest.raises(Refused, match=r"HTTP 401 \(the token is not valid.*credentials were not provided") as raised:
        pools.allocate_database(*WHO)
    assert (raised.value.status, len(awx.requests), time_.slept) == (401, 1, [])


def test_a_token_without_the_role_is_told_at_once(awx: Awx, pools: AwxPools, time_: Time) -> None:
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    awx.forbidden = True
    with pytest.raises(Refused, match=r"HTTP 403.*role Execute.*do not have permission") as raised:
        pools.allocate_database(*WHO)
    assert (raised.value.status, len(awx.launches), time_.slept) == (403, 1, [])


def test_a_template_that_is_not_there(awx: Awx, pools: AwxPools, time_: Time) -> None:
    with pytest.raises(Refused, match=r"no job template postgres-pools-allocate .*awx\.yml"):
        pools.allocate_database(*WHO)
    assert (len(awx.requests), time_.slept) == (1, [])


def test_a_template_that_went_away(awx: Awx, pools: AwxPools) -> None:
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    awx.fault(LAUNCH, "status", status=404, body={"detail": "Not found."})
    with pytest.raises(Refused, match="HTTP 404") as raised:
        pools.allocate_database(*WHO)
    assert (raised.value.status, len(awx.launches)) == (404, 1)


def test_a_name_that_two_organizations_have(awx: Awx, pools: AwxPools, time_: Time) -> None:
    awx.template("pools", Ending(artifacts={"servers": [], "totals": {}}))
    awx.template("pools", Ending(artifacts={"servers": [], "totals": {}}))
    awx.templates[10]["organization"], awx.templates[11]["organization"] = "one", "two"
    with pytest.raises(Refused, match="2 job templates"):
        AwxPools(awx.url, TOKEN).get_pool_status()
    assert asking(awx, time_, organization="two").get_pool_status().servers == ()
    assert awx.launches[0].path == "/api/v2/job_templates/11/launch/"


def test_an_answer_that_the_survey_refuses(awx: Awx, pools: AwxPools, time_: Time) -> None:
    awx.template("allocate", Ending(artifacts=ALLOCATED), needs=["instance_id"])
    with pytest.raises(
        Refused, match="HTTP 400: variables_needed_to_start: Value gold for 'plan_tier' expected to be one of"
    ) as raised:
        pools.allocate_database(INSTANCE, CUSTOMER, "gold")
    assert (raised.value.status, len(awx.launches), awx.jobs, time_.slept) == (400, 1, {}, [])


def test_a_template_that_would_ignore_a_variable(awx: Awx, pools: AwxPools) -> None:
    awx.template("allocate", Ending(artifacts=ALLOCATED), takes=["instance_id", "customer_id", "plan_tier"])
    with pytest.raises(Refused, match="does not take require_dedicated: add it to the survey"):
        pools.allocate_database(*WHO, require_dedicated=True)
    assert awx.jobs[100]["status"] == "canceled"


def test_what_is_no_awx(awx: Awx, pools: AwxPools) -> None:
    awx.fault("GET .*", "status", status=200, body="<html>a page to log in</html>")
    with pytest.raises(Refused, match="is no AWX"):
        pools.get_pool_status()
    awx.fault("GET .*", "status", status=301, headers={"location": "https://awx.example/"})
    with pytest.raises(Refused, match=r"redirects to https://awx\.example/"):
        pools.get_pool_status()
    with pytest.raises(Refused, match="begins with https"):
        AwxPools("awx.example", TOKEN)
    assert len(awx.requests) == 2


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("1", CUSTOMER, "standard"), "instance_id is no UUID: '1'"),
        ((INSTANCE, "{{ lookup('pipe', 'id') }}", "standard"), "customer_id is no UUID"),
        ((INSTANCE, CUSTOMER, "{{ lookup('pipe', 'id') }}"), "plan_tier may have letters"),
        ((INSTANCE, CUSTOMER, ""), "plan_tier may have letters"),
    ],
)
def test_what_cannot_be_right_is_not_sent(awx: Awx, pools: AwxPools, arguments: Any, says: str) -> None:
    with pytest.raises(Refused, match=says) as raised:
        pools.allocate_database(*arguments)
    assert (raised.value.status, awx.requests) == (None, [])


def test_nothing_that_ansible_would_evaluate_is_sent(awx: Awx, pools: AwxPools) -> None:
    for bad in ({"service": "{{ x }}"}, {"hooks": {"stop": [{"command": ["a", "{% raw %}"]}]}}, {"{# #}": 1}):
        with pytest.raises(Refused, match=r"application.* holds a template"):
            pools.change_plan(INSTANCE, "premium", application=bad)
    with pytest.raises(Refused, match="connection_secret may have"):
        pools.allocate_database(*WHO, connection_secret="a b")
    assert awx.requests == []


def test_an_id_is_sent_as_the_playbooks_write_it(awx: Awx, pools: AwxPools) -> None:
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    pools.allocate_database(INSTANCE.upper(), CUSTOMER.replace("-", ""), "standard")
    assert awx.launches[0].body["extra_vars"]["instance_id"] == INSTANCE
    assert awx.launches[0].body["extra_vars"]["customer_id"] == CUSTOMER


# --- AWX does not answer


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("status", {"status": 500}),
        ("status", {"status": 502, "body": "<html>Bad Gateway</html>"}),
        ("status", {"status": 503}),
        ("status", {"status": 504}),
        ("status", {"status": 429}),
        ("drop", {}),
        ("late", {"seconds": 0.4}),
    ],
)
@pytest.mark.parametrize("times", [1, 3, 4])
def test_a_question_is_asked_four_times(awx: Awx, time_: Time, kind: str, more: Dict[str, Any], times: int) -> None:
    awx.template("pools", Ending(artifacts={"servers": [], "totals": {}}))
    awx.fault("GET /api/v2/job_templates/", kind, times=times, **more)
    pools = asking(awx, time_, request_timeout=0.2 if kind == "late" else 5)
    if times < 4:
        assert pools.get_pool_status().servers == ()
        assert time_.slept == [*[1, 2, 4][:times], 2, 2, 2]
        assert awx.count("GET", "job_templates/$") == times + 1
        return
    with pytest.raises(Unavailable, match=r"does not answer GET job_templates/: .*\(4 attempts\)") as raised:
        pools.get_pool_status()
    assert raised.value.attempts == 4
    assert time_.slept == [1, 2, 4]
    assert len(awx.requests) == 4


def test_a_poll_that_fails_does_not_end_the_wait(awx: Awx, pools: AwxPools, time_: Time) -> None:
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    awx.fault(JOB, "drop", times=2)
    awx.fault(JOB, "status", status=503)
    assert isinstance(pools.allocate_database(*WHO), Connection)
    assert (len(awx.launches), time_.slept) == (1, [2, 1, 2, 4, 2, 2])


def test_nobody_listens(time_: Time) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = "http://127.0.0.1:{0}".format(taken.getsockname()[1])
        with pytest.raises(Unavailable, match="ConnectError") as raised:
            AwxPools(url, TOKEN, sleep=time_.sleep, jitter=lambda: 0.0).get_pool_status()
    assert (raised.value.attempts, time_.slept) == (4, [1, 2, 4])


def test_pauses_are_spread(awx: Awx, time_: Time) -> None:
    """Those who were refused together do not come back together."""
    awx.template("pools", Ending(artifacts={"servers": [], "totals": {}}))
    awx.fault("GET .*", "status", times=4, status=500)
    with pytest.raises(Unavailable):
        asking(awx, time_, jitter=lambda: 1.0).get_pool_status()
    assert time_.slept == [1.25, 2.5, 5]


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 1, 1),
        ("nonsense", 1, 1),
        ("a date", 20, 30),
    ],
)
def test_awx_says_how_long_to_wait(
    awx: Awx, pools: AwxPools, time_: Time, header: str, least: float, most: float
) -> None:
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    if header == "a date":
        then = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=30)
        header = email.utils.format_datetime(then, usegmt=True)
    awx.fault(LAUNCH, "status", status=429, headers={"retry-after": header})
    pools.allocate_database(*WHO)
    assert least <= time_.slept[0] <= most
    # A 429 was not taken: nobody looks for its job.
    assert (len(awx.launches), len(awx.jobs), awx.count("GET", r"job_templates/\d+/jobs/")) == (2, 1, 0)


def test_awx_wants_more_time_than_there_is(awx: Awx, pools: AwxPools, time_: Time) -> None:
    awx.fault("GET .*", "status", status=429, headers={"retry-after": "3600"})
    with pytest.raises(Unavailable) as raised:
        pools.get_pool_status()
    assert (raised.value.retry_after, raised.value.attempts, time_.slept) == (3600, 1, [])


# --- a launch whose answer is lost


@pytest.mark.parametrize("lists_variables", [True, False])
@pytest.mark.parametrize(
    ("kind", "more"),
    [("drop", {}), ("status", {"status": 502}), ("status", {"status": 500}), ("late", {"seconds": 0.4})],
)
def test_a_launch_that_awx_took_is_not_launched_again(
    awx: Awx, time_: Time, kind: str, more: Dict[str, Any], lists_variables: bool
) -> None:
    awx.lists_variables = lists_variables
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    # Jobs of somebody else, one before and one after, which are not to be taken for it.
    took = awx.launch
    other = {"extra_vars": {"instance_id": CUSTOMER}}
    took(awx.templates[10], other)

    def launch(template: Dict[str, Any], body: Any) -> Any:
        answer = took(template, body)
        took(template, other)
        return answer

    awx.launch = launch  # type: ignore[method-assign,assignment]
    awx.fault(LAUNCH, kind, after=True, **more)
    answer = asking(awx, time_, request_timeout=0.2 if kind == "late" else 5).allocate_database(*WHO)
    assert isinstance(answer, Connection)
    assert len(awx.launches) == 1
    assert sorted(awx.jobs) == [100, 101, 102]
    assert awx.count("GET", r"job_templates/\d+/jobs/$") == 1
    assert awx.count("GET", r"/api/v2/jobs/101/$") > 0


def test_a_launch_that_awx_did_not_take_is_launched_again(awx: Awx, pools: AwxPools) -> None:
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    awx.fault(LAUNCH, "drop", times=3)
    assert isinstance(pools.allocate_database(*WHO), Connection)
    assert (len(awx.launches), len(awx.jobs)) == (4, 1)


def test_a_launch_whose_job_has_ended_meanwhile_is_asked_again(awx: Awx, pools: AwxPools) -> None:
    """Harmless, since the second run gives what the first one gave."""
    awx.template("allocate", Ending(artifacts=ALLOCATED))
    awx.fault(LAUNCH, "drop", after=True)
    ended = awx.jobs_of
    awx.jobs_of = lambda template, query: ended(template, dict(query, status__in="nothing"))  # type: ignore[method-assign]
    assert isinstance(pools.allocate_database(*WHO), Connection)
    assert (len(awx.launches), len(awx.jobs)) == (2, 2)


def test_a_launch_about_no_instance_is_just_repeated(awx: Awx, pools: AwxPools) -> None:
    awx.template("pools", Ending(artifacts={"servers": [], "totals": {}}))
    awx.fault(LAUNCH, "drop", after=True)
    pools.get_pool_status(status="error")
    assert (len(awx.launches), len(awx.jobs), awx.count("GET", r"job_templates/\d+/jobs/")) == (2, 2, 0)


# --- secrets, certificates


def test_nothing_shows_the_token_or_a_password(awx: Awx, pools: AwxPools) -> None:
    shown = [repr(pools), str(pools)]
    for status in (401, 500):
        awx.fault("GET .*", "status", times=4, status=status)
        with pytest.raises(PoolsError) as raised:
            pools.get_pool_status()
        shown += [repr(raised.value), str(raised.value), str(raised.value.__cause__), str(raised.getrepr())]
        awx.faults.clear()
    connection = Connection(
        "i", "s", "h", 1, "d", "u", password="hush", dsn="postgresql://u:hush@h/d", ca_certificate="hush"
    )
    shown += [repr(connection), str(connection), "{0}".format(connection)]
    assert not [text for text in shown if TOKEN in text or "hush" in text]
    assert connection.arguments()["password"] == "hush"


def test_certificates_are_checked() -> None:
    pools = AwxPools("https://awx.example", TOKEN)
    context = pools._client._transport._pool._ssl_context  # type: ignore[attr-defined]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    with pytest.raises(FileNotFoundError):
        AwxPools("https://awx.example", TOKEN, verify="/nowhere/ca.pem")
