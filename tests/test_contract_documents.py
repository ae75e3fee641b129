"""The contract for machines: its documents are valid, and say what the code says."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from contract_schemas import error_rows
from jsonschema import Draft7Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from automoderate import contract
from automoderate.core import hub
from automoderate.core.updates import EVENTS
from automoderate.server.admin import PREFIX
from automoderate.testing import SimulatedClient, Simulation
from kits import ROOT, contract_documents
from kits.contract_documents import FORMAT_ERRORS, conforms
from kits.simulated_http import Program

ASYNCAPI = ROOT / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"


def test_the_files_are_up_to_date() -> None:
    done = subprocess.run([sys.executable, "scripts/contract_documents.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0, "run: python scripts/contract_documents.py"


def test_openapi_is_valid() -> None:
    assert [str(error) for error in OpenAPIV31SpecValidator(contract.openapi()).iter_errors()] == []
    broken = contract.openapi()
    broken["paths"]["/health"]["get"]["responses"] = {"200": {}}
    assert list(OpenAPIV31SpecValidator(broken).iter_errors())


def test_asyncapi_is_valid() -> None:
    validator = Draft7Validator(json.loads(ASYNCAPI.read_text()))
    assert [error.message for error in validator.iter_errors(contract.asyncapi())] == []
    broken = contract.asyncapi()
    broken["operations"]["join_project"]["action"] = "publish"
    assert list(validator.iter_errors(broken))


@pytest.mark.parametrize("document", [contract.openapi(), contract.asyncapi()], ids=["openapi", "asyncapi"])
def test_references_lead_somewhere(document: dict[str, Any]) -> None:
    references = set(_references(document))
    assert references
    for reference in references:
        found: Any = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in found, reference
            found = found[step]
    named = {reference.rpartition("/")[2] for reference in references if "/schemas/" in reference}
    assert named == set(document["components"]["schemas"])


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)


def test_where_another_application_is_mounted_and_the_cookie_has_another_name() -> None:
    assert [server["url"] for server in contract.openapi()["servers"]] == ["/"]
    document = contract.openapi("/realtime", "sid")
    assert [server["url"] for server in document["servers"]] == ["/realtime"]
    assert document["components"]["securitySchemes"]["session"]["name"] == "sid"
    assert contract.asyncapi("sid")["servers"]["automoderate"]["security"] == [
        {"type": "httpApiKey", "name": "sid", "in": "cookie"}
    ]


# The events ---------------------------------------------------------------------------------------------------


def test_every_event_that_the_hub_says_is_there_and_no_other() -> None:
    """Read from its syntax tree, so that an event that no test brings about counts too."""
    said = set()
    for node in ast.walk(ast.parse((ROOT / "automoderate" / "core" / "hub.py").read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Emit", "_answer", "_notice"):
            said |= {each.value for each in node.args[1:2] if isinstance(each, ast.Constant)}
    assert contract_documents.names("send") == said | set(EVENTS)
    assert contract_documents.names("receive") == hub.HANDLED_EVENTS


def test_the_errors_are_the_hubs() -> None:
    problem = contract.asyncapi()["components"]["schemas"]["Problem"]
    pairs = [(each["properties"]["code"]["const"], each["properties"]["message"]["const"]) for each in problem["oneOf"]]
    assert pairs == [error.value for error in hub.Error]
    assert {(code, message) for code, message, _, _ in error_rows()} == set(pairs)
    for error in hub.Error:
        contract_documents.received("error", error.payload)
    with pytest.raises(AssertionError):
        contract_documents.received("error", {"code": "timeout", "message": "Access denied"})


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    simulation = Simulation(limits=hub.Limits(max_events_per_minute=10_000))
    simulation.directory.add_user("ann")
    simulation.directory.add_project("p", owner="ann")
    simulation.directory.keys["am_key"] = "p"
    return simulation


@pytest.fixture
def ann(simulation: Simulation) -> SimulatedClient:
    ann = simulation.connect("ann")
    ann.call("join_project", {"project_id": "p", "presence": True})
    return ann


IDS: Sequence[Any] = [None, "", 7, True, [], "p", "x" * hub.MAX_ID_LENGTH, "x" * (hub.MAX_ID_LENGTH + 1)]
PAYLOADS: Sequence[Any] = [None, "p", 7, [], {}, *({"project_id": each} for each in IDS)]
STATUSES: Sequence[Any] = [None, "flagged", [], ["flagged"], list(hub.STATUSES), ["flagged", "other"], [None], {}]


@pytest.mark.parametrize("event", sorted(hub.HANDLED_EVENTS))
def test_what_the_document_takes_is_taken_and_what_it_does_not_is_refused(ann: SimulatedClient, event: str) -> None:
    more: list[dict[str, Any]] = [{}]
    if event == "join_project":
        more = [{}, *({"statuses": each} for each in STATUSES)]
    elif event == "looking_at":
        more = [{"content_id": each} for each in (*IDS, "é")]
    for payload in PAYLOADS:
        for extra in more if isinstance(payload, dict) else more[:1]:
            sent = {**payload, **extra} if isinstance(payload, dict) else payload
            answer = ann.call(event, sent)
            refused = answer.get("error", {}).get("code") in FORMAT_ERRORS
            assert refused is not conforms(event, [sent]), (sent, answer)


@pytest.mark.parametrize(
    "more", [{"recent": 0}, {"recent": 201}, {"recent": "5"}, {"presence": 1}, {"last_event_id": 5}]
)
def test_what_is_ignored_is_not_what_the_document_says(ann: SimulatedClient, more: dict[str, Any]) -> None:
    assert ann.call("join_project", {"project_id": "p", **more})["room"] == "project_p"
    assert not conforms("join_project", [{"project_id": "p", **more}])


def test_the_edges_of_recent() -> None:
    for count in (1, hub.MAX_RECENT):
        assert conforms("join_project", [{"project_id": "p", "recent": count}])
    assert not conforms("join_project", [{"project_id": "p", "recent": hub.MAX_RECENT + 1}])


# The HTTP API -------------------------------------------------------------------------------------------------

PATH = "/api/projects/p/events"


def test_every_code_of_a_refusal_is_there_and_no_other() -> None:
    said = {(401, code) for code in _returned("control.py")}
    for file in sorted((ROOT / "automoderate" / "server").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "HttpError":
                status, code = node.args[0], node.args[1]
                if isinstance(status, ast.Constant) and isinstance(code, ast.Constant):
                    said.add((int(str(status.value)), str(code.value)))
    # Of every path alike, and of none.
    said -= {(404, "not_found"), (405, "method_not_allowed")}
    assert said == set(_documented())


def _returned(file: str) -> Iterator[str]:
    """The codes of tokens that do not count."""
    for node in ast.walk(ast.parse((ROOT / "automoderate" / file).read_text())):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
            assert isinstance(node.value.elts[0], ast.Constant)
            yield str(node.value.elts[0].value)


def _documented() -> Iterator[tuple[int, str]]:
    for methods in contract.openapi()["paths"].values():
        for operation in (each for name, each in methods.items() if name in ("get", "post")):
            for status, response in operation["responses"].items():
                for part in response["content"].get("application/json", {"schema": {}})["schema"].get("allOf", ()):
                    codes = part.get("properties", {}).get("error", {}).get("properties", {}).get("code", {})
                    yield from ((int(status), code) for code in codes.get("enum", ()))


def test_every_path_of_the_api_is_there_and_no_other(simulation: Simulation) -> None:
    api = simulation.server._api
    assert api is not None
    # The administrators' are known by what they begin and end with: what they name stands between.
    admin = [path for path in contract.openapi()["paths"] if path.startswith(PREFIX)]
    assert {api._admin.find(path.removeprefix(PREFIX))[0] is not None for path in admin} == {True}  # type: ignore[index]
    assert len(admin) == len(api._admin._paths)
    ours = {*api._paths, "/api/projects/{project_id}/events", *contract.documents(), *admin}
    assert ours == set(contract.openapi()["paths"])


EVENT = {"event": "moderation_update", "data": {"status": "approved"}}
BODIES: Sequence[Any] = [
    EVENT, {"event": "moderation_update", "data": {"status": "other"}}, {"event": "connected", "data": {}},
    {"event": "stats_update", "data": []}, {"event": "stats_update"}, {"data": {}}, {}, [], [EVENT], "text",
    {"events": []}, {"events": [EVENT]}, {"events": [EVENT] * 1000}, {"events": [EVENT] * 1001}, {"events": EVENT},
    {"events": [EVENT, {}]}, {"event": "rule_update", "data": {"action": "created", "rule": {}, "any": [1]}},
    {"event": "content_received", "data": {"content_id": None, "meta_data": [1]}},
]  # fmt: skip


def test_bodies_that_the_document_takes_are_published_and_others_are_refused(simulation: Simulation) -> None:
    program = Program(simulation, X_API_Key="am_key")
    taken = 0
    for body in BODIES:
        reply = program.request("POST", PATH, body)
        assert (reply.status == 202) is contract_documents.is_body("post", PATH, body), (body, reply.body)
        taken += reply.status == 202
    assert 0 < taken < len(BODIES)


@pytest.mark.parametrize("limit", [0, 1, 100, 1000, 1001])
def test_as_many_may_be_read_as_the_document_says(simulation: Simulation, limit: int) -> None:
    (schema,) = [
        each["schema"]
        for each in contract.openapi()["paths"]["/api/projects/{project_id}/events"]["get"]["parameters"]
        if each["name"] == "limit"
    ]
    reply = Program(simulation, X_API_Key="am_key").request("GET", f"{PATH}?limit={limit}")
    assert (reply.status == 200) is (schema["minimum"] <= limit <= schema["maximum"])


def test_every_parameter_is_there_and_no_other() -> None:
    code = (ROOT / "automoderate" / "server" / "api.py").read_text()
    read = re.findall(r'(?:query\.get\(|number\(request, )"(\w+)"', code)
    documented = contract.openapi()["paths"]["/api/projects/{project_id}/events"]["get"]["parameters"]
    assert sorted(read) == sorted(each["name"] for each in documented)
