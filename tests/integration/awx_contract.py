# Copyright (c) 2026 The saasodoo.postgres_pools authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fake of AWX: its REST API as awx_contract.yml has written it down, over real HTTP. It runs no jobs.

It is stricter than AWX, which passes over fields that it does not know: here they are an error, as wrong types are.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Tuple
from urllib.parse import parse_qsl, urlsplit

import jinja2
import jinja2.sandbox
import yaml

CONTRACT: Dict[str, Any] = yaml.safe_load((Path(__file__).parent / "awx_contract.yml").read_text())
TEMPLATES = ("job_templates", "workflow_job_templates", "projects", "inventory_sources", "workflow_approval_templates")
ENCRYPTED = "$encrypted$"
EMPTY = {"str": "", "json": "", "int": 0, "bool": False, "dict": {}, "list": []}
TYPES = {"str": str, "json": str, "int": int, "bool": bool, "dict": dict, "list": list}
SURVEY_TYPES = {"text": str, "textarea": str, "password": str, "multiplechoice": str, "multiselect": str, "integer": int, "float": float}
Object = Dict[str, Any]


class RefusedError(Exception):
    def __init__(self, code: int, body: Any) -> None:
        super().__init__(str(body))
        self.code, self.body = code, body


class Field(NamedTuple):
    kind: str
    required: bool
    default: Any
    choices: Tuple[str, ...] = ()
    nullable: bool = False


def field_of(text: str) -> Field:
    text, _equals, default = text.partition("=")
    required, nullable = text.endswith("!"), text.endswith("?")
    text = text.rstrip("!?")
    if text.startswith(">"):
        return Field(text[1:], required, None, nullable=True)
    if "|" in text:
        return Field("choice", required, default or (None if nullable else ""), tuple(text.split("|")), nullable)
    return Field(text, required, yaml.safe_load(default) if default else None if nullable else EMPTY[text], nullable=nullable)


FIELDS = {kind: {name: field_of(text) for name, text in told["fields"].items()} for kind, told in CONTRACT.items()}


class Awx:
    """What is in it, what it is asked, and what it was told to write."""

    def __init__(self, token: str, playbooks: List[str]) -> None:
        self.token, self.playbooks = token, playbooks
        self.objects: Dict[str, Dict[int, Object]] = {kind: {} for kind in CONTRACT}
        self.surveys: Dict[int, Object] = {}
        self.links: Dict[Tuple[str, int, str], List[int]] = {}
        self.writes: List[Tuple[str, str, Any]] = []
        self.asked: List[str] = []
        self.next_id = 1
        self.lock = threading.RLock()
        self.url = ""
        self.add("users", username="admin", is_superuser=True)

    # --- for tests

    def add(self, kind: str, **values: Any) -> int:
        """Something that is there before, and not by the role."""
        return int(self.create(kind, values)["id"])

    def named(self, kind: str) -> Dict[str, Object]:
        return {one.get("name", one.get("identifier", one.get("hostname", ""))): one for one in self.objects[kind].values()}

    def survey(self, name: str, kind: str = "job_templates") -> Dict[str, Object]:
        return {question["variable"]: question for question in self.surveys.get(self.named(kind)[name]["id"], {}).get("spec", [])}

    def linked(self, kind: str, identity: int, what: str) -> List[str]:
        target = CONTRACT[kind]["lists"][what]
        return [str(self.objects[target][one].get("name", self.objects[target][one].get("identifier"))) for one in self.links.get((kind, identity, what), [])]

    # --- requests

    def answer(self, method: str, target: str, authorization: str, body: Any) -> Tuple[int, Any]:
        parts = urlsplit(target)
        path = parts.path
        self.asked.append("{0} {1}".format(method, target))
        if authorization != "Bearer " + self.token:
            raise RefusedError(401, {"detail": "Authentication credentials were not provided. To establish a login session, visit /api/login/."})
        if method != "GET":
            self.writes.append((method, path, body))
        if not path.startswith("/api/v2/") or not path.endswith("/"):
            raise RefusedError(404, {"detail": "The requested resource could not be found."})
        words = path[len("/api/v2/") : -1].split("/")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if words[0] in CONTRACT:
            return self.listed(method, words, body, path, query)
        return 200, self.special(method, words, path, query)

    def special(self, method: str, words: List[str], path: str, query: Dict[str, str]) -> Any:
        """What is no kind of object of its own."""
        if method == "GET" and words == ["ping"]:
            return {"version": "24.6.1", "ha": False, "instances": []}
        if method == "GET" and words == ["me"]:
            return self.page([self.shown("users", one) for one in self.objects["users"].values()], path, query)
        if method == "GET" and words == ["unified_job_templates"]:
            members = [(kind, one) for kind in TEMPLATES for one in self.objects[kind].values()]
            return self.find(members, query, path, {"organization": None, "type": None})
        if method == "GET" and words[0] == "project_updates":
            return {"id": 1, "status": "successful", "finished": "2026-01-01T00:00:00Z", "failed": False, "scm_revision": "0123456789abcdef"}
        raise RefusedError(404, {"detail": "The requested resource could not be found."})

    def listed(self, method: str, words: List[str], body: Any, path: str, query: Dict[str, str]) -> Tuple[int, Any]:
        kind = words[0]
        if len(words) > 1:
            one = self.objects[kind].get(int(words[1]) if words[1].isdigit() else -1)
            if one is None:
                raise RefusedError(404, {"detail": "Not found."})
            return self.detail(method, kind, one, body) if len(words) == 2 else self.below(method, kind, one, words[2], body, path, query)
        if method == "GET":
            allowed = dict.fromkeys(CONTRACT[kind].get("filters", []))
            return 200, self.find([(kind, one) for one in self.objects[kind].values()], query, path, allowed)
        if method == "POST" and kind != "workflow_approval_templates":
            return 201, self.shown(kind, self.create(kind, body))
        raise RefusedError(405, {"detail": 'Method "{0}" not allowed.'.format(method)})

    def detail(self, method: str, kind: str, one: Object, body: Any) -> Tuple[int, Any]:
        if method == "GET":
            return 200, self.shown(kind, one)
        if method == "PATCH":
            changed = dict(one, **self.checked(kind, body, one))
            self.rules(kind, changed)
            one.update(changed)
            return 200, self.shown(kind, one)
        if method == "DELETE" and kind not in ("labels", "users"):
            self.delete(kind, one["id"])
            return (202 if kind == "inventories" else 204), None
        raise RefusedError(405, {"detail": 'Method "{0}" not allowed.'.format(method)})

    def below(self, method: str, kind: str, one: Object, word: str, body: Any, path: str, query: Dict[str, str]) -> Tuple[int, Any]:
        identity = one["id"]
        if word == "survey_spec" and kind in ("job_templates", "workflow_job_templates"):
            if method == "POST":
                self.check_survey(body)
                self.surveys[identity] = body
            elif method == "DELETE":
                self.surveys.pop(identity, None)
            return 200, self.surveys.get(identity, {}) if method == "GET" else {}
        if kind == "projects" and word == "playbooks":
            return 200, self.playbooks if one["scm_type"] or one["local_path"] else []
        if kind == "projects" and word == "update" and method == "POST":
            return 202, {"id": 1, "url": "/api/v2/project_updates/1/", "status": "pending"}
        if kind == "workflow_job_template_nodes" and word == "create_approval_template" and method == "POST":
            made = self.create("workflow_approval_templates", body)
            one["unified_job_template"] = made["id"]
            return 201, self.shown("workflow_approval_templates", made)
        told = CONTRACT[kind].get("lists", {})
        if word not in told:
            raise RefusedError(404, {"detail": "The requested resource could not be found."})
        linked = self.links.setdefault((kind, identity, word), [])
        if method == "GET":
            return 200, self.page([self.shown(told[word], self.objects[told[word]][other]) for other in linked], path, query)
        self.link(told[word], linked, body)
        return 204, None

    def link(self, kind: str, linked: List[int], body: Any) -> None:
        if set(body) - {"id", "disassociate"} or body.get("id") not in self.objects[kind]:
            raise RefusedError(400, {"msg": "nothing of this id among {0}: {1}".format(kind, body)})
        if body.get("disassociate"):
            linked.remove(body["id"])
            return
        if kind == "credentials":
            types = [self.objects["credentials"][other]["credential_type"] for other in linked]
            if self.objects["credentials"][body["id"]]["credential_type"] in types:
                raise RefusedError(400, {"error": "Cannot assign multiple credentials of one type."})
        linked.append(body["id"])

    # --- objects

    def create(self, kind: str, body: Any) -> Object:
        given = self.checked(kind, body, None)
        one = {name: field.default for name, field in FIELDS[kind].items()}
        one.update(CONTRACT[kind].get("read", {}), **given)
        if kind == "job_templates":
            # It is that of its project, whatever was asked for.
            one["organization"] = self.objects["projects"].get(one["project"], {}).get("organization")
        self.rules(kind, one)
        for other in self.objects[kind].values():
            unique = CONTRACT[kind].get("unique")
            if unique and all(other[name] == one[name] for name in unique):
                raise RefusedError(400, {"__all__": ["{0} with this {1} already exists.".format(CONTRACT[kind]["type"], " and ".join(unique))]})
        one["id"] = self.next_id
        self.next_id += 1
        self.objects[kind][one["id"]] = one
        return one

    def checked(self, kind: str, body: Any, before: Optional[Object]) -> Object:
        """The fields of a request, each of the type that the contract says."""
        if not isinstance(body, dict):
            raise RefusedError(400, {"detail": "JSON parse error"})
        given: Object = {}
        for name, value in body.items():
            if name in CONTRACT[kind].get("read", {}) or name == "type":
                continue
            if name not in FIELDS[kind]:
                raise RefusedError(400, {name: ["no field of {0}".format(kind)]})
            given[name] = self.value(name, FIELDS[kind][name], value)
        missing = [name for name, field in FIELDS[kind].items() if field.required and name not in given and before is None]
        if missing:
            raise RefusedError(400, {name: ["This field is required."] for name in missing})
        if kind == "credentials" and before and "inputs" in given:
            given["inputs"] = {key: before["inputs"].get(key) if value == ENCRYPTED else value for key, value in given["inputs"].items()}
        return given

    def value(self, name: str, field: Field, value: Any) -> Any:
        if value is None:
            return None if field.nullable else field.default
        if field.kind == "choice":
            if value not in field.choices:
                raise RefusedError(400, {name: ['"{0}" is not a valid choice.'.format(value)]})
        elif field.kind in TYPES:
            if not isinstance(value, TYPES[field.kind]) or (field.kind == "int" and isinstance(value, bool)):
                raise RefusedError(400, {name: ["{0!r} is no {1}".format(value, field.kind)]})
            if field.kind == "json" and value:
                json.loads(value)
            if field.required and value == "":
                raise RefusedError(400, {name: ["This field may not be blank."]})
        else:
            kinds = TEMPLATES if field.kind == "unified_job_templates" else (field.kind,)
            if not isinstance(value, int) or not any(value in self.objects[kind] for kind in kinds):
                raise RefusedError(400, {name: ['Invalid pk "{0}" - object does not exist.'.format(value)]})
        return value

    def delete(self, kind: str, identity: int) -> None:
        if kind == "credential_types" and any(one["credential_type"] == identity for one in self.objects["credentials"].values()):
            raise RefusedError(403, {"detail": "Credential types that are in use cannot be deleted."})
        del self.objects[kind][identity]
        stays = ("job_templates", "projects", "workflow_job_templates")
        cascades = {"inventories": "inventory", "organizations": "organization", "workflow_job_templates": "workflow_job_template"}
        for other, members in self.objects.items():
            for one in list(members.values()):
                inside = kind in cascades and one.get(cascades[kind]) == identity and other not in stays
                if inside or (other == "schedules" and kind in TEMPLATES and one["unified_job_template"] == identity):
                    self.delete(other, one["id"])
        for key in [key for key in self.links if key[:2] == (kind, identity)]:
            del self.links[key]
        # A label goes with the last template that has it.
        used = {label for key, labels in self.links.items() if key[2] == "labels" for label in labels}
        if kind in ("job_templates", "workflow_job_templates"):
            self.objects["labels"] = {label: one for label, one in self.objects["labels"].items() if label in used}

    # --- what AWX refuses, beside types

    def rules(self, kind: str, one: Object) -> None:
        check = getattr(self, "check_" + kind, None)
        if check:
            check(one)

    def check_job_templates(self, one: Object) -> None:
        if one["playbook"] not in self.playbooks:
            raise RefusedError(400, {"playbook": ["Playbook not found for project."]})

    def check_schedules(self, one: Object) -> None:
        check_rrule(one["rrule"])
        self.check_prompts(one)

    def check_workflow_job_template_nodes(self, one: Object) -> None:
        self.check_prompts(one)

    def check_prompts(self, one: Object) -> None:
        """Variables that the template asks for, in the survey's types and choices, and nothing that it does not ask for."""
        template = self.objects["job_templates"].get(one["unified_job_template"])
        if template is None:
            return
        if one["job_type"] and not template["ask_job_type_on_launch"]:
            raise RefusedError(400, {"job_type": ["Field is not configured to prompt on launch."]})
        survey = {question["variable"]: question for question in self.surveys.get(template["id"], {}).get("spec", [])}
        for name, value in one["extra_data"].items():
            if name not in survey or not template["survey_enabled"]:
                if not template["ask_variables_on_launch"]:
                    raise RefusedError(400, {"extra_data": ["Variables {0} are not allowed on launch.".format(name)]})
                continue
            check_survey_answer(survey[name], value, "extra_data")

    def check_credential_types(self, one: Object) -> None:
        ids = [field["id"] for field in one["inputs"].get("fields", [])]
        if len(set(ids)) < len(ids) or "tower" in ids or set(one["inputs"].get("required", [])) - set(ids):
            raise RefusedError(400, {"inputs": ["field IDs must be unique, and required ones be there"]})
        for field in one["inputs"].get("fields", []):
            unknown = set(field) - {"id", "label", "type", "help_text", "secret", "multiline", "choices", "default", "format", "ask_at_runtime"}
            if unknown or field["type"] not in ("string", "boolean") or not field["label"]:
                raise RefusedError(400, {"inputs": ["{0} of the field {1}".format(unknown, field["id"])]})
        check_injectors(one["injectors"], ids)

    def check_credentials(self, one: Object) -> None:
        inputs = self.objects["credential_types"][one["credential_type"]]["inputs"]
        unknown = set(one["inputs"]) - {field["id"] for field in inputs["fields"]}
        if unknown:
            raise RefusedError(400, {"inputs": ["Additional properties are not allowed ({0} was unexpected)".format(", ".join(sorted(unknown)))]})
        for field in inputs["fields"]:
            value = one["inputs"].get(field["id"], "")
            if not isinstance(value, str) or (value and field.get("choices") and value not in field["choices"]):
                raise RefusedError(400, {"inputs": ["{0!r} for {1}".format(type(value).__name__, field["id"])]})

    def check_survey(self, spec: Any) -> None:
        for name, kind in (("name", str), ("description", str), ("spec", list)):
            if not isinstance(spec.get(name), kind):
                raise RefusedError(400, {"error": "Field '{0}' is missing from survey spec.".format(name)})
        if not spec["spec"] or len({question["variable"] for question in spec["spec"]}) < len(spec["spec"]):
            raise RefusedError(400, {"error": "'spec' doesn't contain any items, or a variable twice."})
        for question in spec["spec"]:
            check_question(question)

    # --- answers

    def shown(self, kind: str, one: Object) -> Object:
        path = "/api/v2/{0}/{1}/".format(kind, one["id"])
        told = dict(one, type=CONTRACT[kind]["type"], url=path)
        related = {name: "{0}{1}/".format(path, name) for name in CONTRACT[kind].get("lists", {})}
        summary: Dict[str, Any] = {}
        for name, field in FIELDS[kind].items():
            for target in TEMPLATES if field.kind == "unified_job_templates" else (field.kind,):
                other = self.objects.get(target, {}).get(one[name] or 0) if name in one and isinstance(one[name], int) else None
                if other:
                    summary[name] = {"id": other["id"], "name": other.get("name", "")}
                    related[name] = "/api/v2/{0}/{1}/".format(target, other["id"])
        if kind in ("job_templates", "workflow_job_templates"):
            related["survey_spec"] = path + "survey_spec/"
        if kind == "projects":
            related.update(playbooks=path + "playbooks/", update=path + "update/")
        if kind == "credentials":
            fields = self.objects["credential_types"][one["credential_type"]]["inputs"]["fields"]
            secret = {field["id"] for field in fields if field.get("secret")}
            told["inputs"] = {key: ENCRYPTED if key in secret and value else value for key, value in one["inputs"].items()}
        return dict(told, related=related, summary_fields=summary)

    def find(self, found: List[Tuple[str, Object]], query: Dict[str, str], path: str, allowed: Dict[str, Any]) -> Any:
        shown = [self.shown(kind, one) for kind, one in found]
        either = [name for name in query if name.startswith("or__")]
        for name, wanted in query.items():
            if name in ("page", "page_size", "order_by"):
                continue
            column = name[len("or__") :] if name in either else name
            if column not in ("id", "name", "hostname", "username", "description__endswith") and column not in allowed:
                raise RefusedError(400, {"detail": "Cannot resolve keyword '{0}' into field.".format(name)})
            if name not in either:
                shown = [one for one in shown if self.matches(one, column, wanted)]
        if either:
            shown = [one for one in shown if any(self.matches(one, name[len("or__") :], query[name]) for name in either)]
        return self.page(shown, path, query)

    def matches(self, one: Object, column: str, wanted: str) -> bool:
        if column == "description__endswith":
            return str(one.get("description", "")).endswith(wanted)
        if column.endswith("__name"):
            return bool(one["summary_fields"].get(column[: -len("__name")], {}).get("name") == wanted)
        if column == "organization" and one["type"] == "inventory_source":
            return bool(str(self.objects["inventories"][one["inventory"]]["organization"]) == wanted)
        return str(one.get(column)) == wanted

    def page(self, found: List[Object], path: str, query: Dict[str, str]) -> Any:
        size, number = int(query.get("page_size", 25)), int(query.get("page", 1))
        rest = dict(query, page=str(number + 1))
        following = "{0}?{1}".format(path, "&".join("{0}={1}".format(*item) for item in rest.items())) if number * size < len(found) else None
        return {"count": len(found), "next": following, "previous": None, "results": found[(number - 1) * size : number * size]}


def check_rrule(rule: str) -> None:
    starts = re.findall(r"DTSTART(?:;[^:]+)?:[0-9]+T[0-9]+Z?", rule)
    rules = re.findall(r"RULE:[^\s]*", rule)
    problems = []
    if len(starts) != 1:
        problems.append("Valid DTSTART required in rrule. Value should start with: DTSTART:YYYYMMDDTHHMMSSZ")
    elif re.match(r"DTSTART:[0-9]+T[0-9]+ ", rule):
        problems.append("DTSTART cannot be a naive datetime.")
    if not rules:
        problems.append("One or more rule required in rrule.")
    for one in rules:
        if "INTERVAL" not in one:
            problems.append("INTERVAL required in rrule: " + one)
        if "SECONDLY" in one:
            problems.append("SECONDLY is not supported: " + one)
    if problems:
        raise RefusedError(400, {"rrule": problems})


def check_question(question: Any) -> None:
    for name, kind in (("type", str), ("question_name", str), ("variable", str), ("required", bool)):
        if not isinstance(question.get(name), kind):
            raise RefusedError(400, {"error": "'{0}' missing from survey question {1}".format(name, question)})
    unknown = set(question) - {"type", "question_name", "question_description", "variable", "required", "default", "min", "max", "choices"}
    if unknown or question["type"] not in SURVEY_TYPES:
        raise RefusedError(400, {"error": "{0} of the question {1}".format(unknown or question["type"], question["variable"])})
    for name in ("min", "max"):
        if name in question and (not isinstance(question[name], int) or isinstance(question[name], bool)):
            raise RefusedError(400, {"error": "The {0} limit of {1} expected to be integer.".format(name, question["variable"])})
    if question["type"] in ("multiplechoice", "multiselect") and not all(isinstance(one, str) for one in question.get("choices") or [None]):
        raise RefusedError(400, {"error": "{0} must specify choices, each a string.".format(question["variable"])})
    if question.get("default", "") != "":
        check_survey_answer(question, question["default"], "error")


def check_survey_answer(question: Object, value: Any, where: str) -> None:
    kind = SURVEY_TYPES[question["type"]]
    good = isinstance(value, kind) and not isinstance(value, bool)
    if good and question["type"] == "multiplechoice":
        good = value in question["choices"]
    elif good:
        size = len(value) if kind is str else value
        good = question.get("min", size) <= size <= question.get("max", size)
    if not good:
        raise RefusedError(400, {where: ["Value {0!r} for '{1}' is not what its survey takes.".format(value, question["variable"])]})


def check_injectors(injectors: Object, ids: List[str]) -> None:
    """Every template in them renders with the fields of the type, and names no other."""
    if set(injectors) - {"file", "env", "extra_vars"}:
        raise RefusedError(400, {"injectors": ["Additional properties are not allowed"]})
    files = injectors.get("file", {})
    labels = [name.partition(".")[2] for name in files]
    if not all(re.fullmatch(r"template(\.[a-zA-Z_]+[a-zA-Z0-9_]*)?", name) for name in files) or ("" in labels and len(labels) > 1):
        raise RefusedError(400, {"injectors": ["no name of a file template: {0}".format(list(files))]})
    if not all(re.fullmatch(r"[A-Z_]+[A-Z0-9_]*", name) for name in injectors.get("env", {})):
        raise RefusedError(400, {"injectors": ["no name of an environment variable"]})
    render(injectors, dict.fromkeys(ids, "EXAMPLE"))


def render(node: Any, inputs: Dict[str, str]) -> Any:
    """What AWX makes of injectors: every string a template, with the names of the files that it has written."""
    if isinstance(node, dict):
        return {key: render(value, inputs) for key, value in node.items()}
    if isinstance(node, list):
        return [render(value, inputs) for value in node]
    if not isinstance(node, str):
        raise RefusedError(400, {"injectors": ["{0!r} is no string".format(node)]})
    filename = {"ca": "/runner/env/ca", "certificate": "/runner/env/certificate", "key": "/runner/env/key"}
    tower = {"filename": "/runner/env/file" if "tower.filename." not in node else filename}
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False)
    try:
        return environment.from_string(node).render(tower=tower, **inputs)
    except jinja2.TemplateError as error:
        raise RefusedError(400, {"injectors": [str(error)]}) from None


class Handler(BaseHTTPRequestHandler):
    awx: Awx
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            with self.awx.lock:
                body = json.loads(text) if text else None
                code, answer = self.awx.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
        except RefusedError as refused:
            code, answer = refused.code, refused.body
        sent = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("X-API-Product-Name", "AWX")
        self.send_header("X-API-Product-Version", "24.6.1")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    do_GET = do_POST = do_PATCH = do_DELETE = handle_any  # noqa: N815

    def log_message(self, *_arguments: Any) -> None:
        pass


@contextlib.contextmanager
def awx(token: str, playbooks: List[str]) -> Iterator[Awx]:
    """A fresh one, listening on this machine."""
    made = Awx(token, playbooks)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("BoundHandler", (Handler,), {"awx": made}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    made.url = "http://127.0.0.1:{0}".format(server.server_address[1])
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
