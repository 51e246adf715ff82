"""The OpenAPI document against the routes, against itself, and against what the hub really answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from hub.api import HubApi
from hub.openapi import OPERATIONS, document
from hub.snapshot import Snapshots
from protocols.event import EXAMPLES
from tests.support.fake_hub import AppClient, FakeHub, card_of


def test_openapi_describes_exactly_the_addresses_that_exist(hub: FakeHub) -> None:
    routes = HubApi(hub, Snapshots(hub)).routes()
    served = {(path, method.lower()) for path, handlers in routes.items() for method in handlers}
    said = {(op.path, op.method) for op in OPERATIONS}
    one = {("/v1/orders/{id}", "get"), ("/v1/orders/{id}/events", "get")}
    assert said - one == served - {("/v1/orders/{order:path}", "get")}
    assert one <= said


def refs_of(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from refs_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from refs_of(value)


def test_openapi_holds_together(client: AppClient) -> None:
    told = client.get("/openapi.json").json()
    assert told == document()
    assert told["openapi"] == "3.1.0"
    schemas = told["components"]["schemas"]
    assert {ref.removeprefix("#/components/schemas/") for ref in refs_of(told)} == set(schemas)
    ids = [operation["operationId"] for path in told["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    examples = told["paths"]["/v1/events"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    assert examples["one"]["value"] == EXAMPLES[0]


def test_the_examples_in_openapi_are_taken(client: AppClient) -> None:
    examples = document()["paths"]["/v1/events"]["post"]["requestBody"]["content"]["application/json"]["examples"]
    for example in examples.values():
        assert client.post("/v1/events", json=example["value"]).status_code in (200, 201)


def mismatches(schema: dict[str, Any], value: Any, schemas: dict[str, Any], at: str) -> Iterator[str]:
    """Where a value is not what its schema says: names, types and enumerations, the part of JSON Schema that our document uses."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    kinds = {"string": str, "integer": int, "boolean": bool, "object": dict, "array": list, "null": type(None)}
    allowed = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", list(kinds))
    if type(value) not in [kinds[name] for name in allowed]:
        yield f"{at}: {value!r} is not {allowed}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r}"
    elif isinstance(value, dict) and "properties" in schema:
        yield from (f"{at}.{name} is missing" for name in schema.get("required", []) if name not in value)
        if schema["required"] != ["node"]:
            yield from (f"{at}.{name} is not described" for name in value if name not in schema["properties"])
        for name, inner in schema["properties"].items():
            if name in value:
                yield from mismatches(inner, value[name], schemas, f"{at}.{name}")
    elif isinstance(value, list):
        for n, item in enumerate(value):
            yield from mismatches(schema.get("items", {}), item, schemas, f"{at}[{n}]")


JSON_READS = [op for op in OPERATIONS if op.method == "get" and "/" not in op.answers[0][2]]


@pytest.mark.parametrize("operation", JSON_READS, ids=lambda op: op.id)
def test_answers_are_what_openapi_says(day: FakeHub, operation: Any) -> None:
    client = AppClient(day)
    client.post("/v1/nodes", json=card_of("dock-9"))
    (conflict,) = client.get("/v1/conflicts").json()["conflicts"]
    one = conflict["id"] if "conflicts" in operation.path else "1" if "quarantine" in operation.path else "SCMS-0259910"
    answer = client.get(operation.path.replace("{id}", one))
    told = document()
    schema = told["paths"][operation.path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert list(mismatches(schema, answer.json(), told["components"]["schemas"], operation.id)) == []


def test_a_wrong_answer_would_be_noticed() -> None:
    schemas = document()["components"]["schemas"]
    assert list(mismatches({"$ref": "#/components/schemas/Taken"}, {"ids": [1], "more": 2}, schemas, "x"))
