"""Whatever OpenAPI's description allows is answered as it says, and what it does not is refused."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from photos import asking

PATHS = {"/v1/segment", "/v1/everything", "/v1/words", "/v1/pictures", "/v1/examples", "/v1/model"}
PATHS |= {"/v1/pictures/{key}.jpg", "/v1/pictures/{key}.png", "/v1/read"}
PATHS |= {"/healthz", "/readyz", "/metrics"}


def test_everything_is_described(client):
    found = client.get("/openapi.json").json()
    assert found["paths"].keys() == PATHS
    kinds = found["paths"]["/v1/segment"]["post"]["requestBody"]["content"]
    assert kinds.keys() == {"application/json", "multipart/form-data"}
    assert "422" in found["paths"]["/v1/segment"]["post"]["responses"]
    prompt = found["components"]["schemas"]["Prompt"]["properties"]
    assert prompt.keys() == {"text", "points", "box", "mask"}


@pytest.mark.proof
@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_schemathesis(mode, segmenter):
    import schemathesis
    from schemathesis.checks import CHECKS

    mode = schemathesis.GenerationMode(mode)
    client = asking(segmenter, allow_swap=True)
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", client.app, headers={"Host": "127.0.0.1"}
    )
    asked = 0
    # A string is rarely a picture, and no random one is a picture's id.
    left_out = [CHECKS.get_one("positive_data_acceptance")]
    for operation in schema.get_all_operations():
        strategy = operation.ok().as_strategy(generation_mode=mode)

        @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=strategy)
        def ask(case):
            nonlocal asked
            asked += 1
            case.headers["Host"] = "127.0.0.1"
            case.call_and_validate(excluded_checks=left_out)

        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong where nothing is asked
            ask()
    assert asked > 100
