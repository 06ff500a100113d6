"""Whatever is asked of the routes that the schema describes, fitting or not, the server answers and does not fail."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import Case, GenerationMode

EXAMPLES = 6
"""Requests of each kind for each route."""
LONGEST_VALUE = 3000
"""Characters of a value in an address."""
LONGEST = 60.0
"""Seconds for an answer."""


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fitting", "not-fitting"])
def test_no_request_is_answered_with_a_server_error(server: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server}/openapi.json")
    schema.config.generation.update(modes=list(GenerationMode))
    seen = set()
    for found in schema.get_all_operations():
        operation: Any = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.query and not operation.body:
            continue  # any path is a text, so none does not fit

        @given(operation.as_strategy(generation_mode=mode))
        @settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        def each(case: Case) -> None:
            _within_reach(case)
            answer = case.call(base_url=server, timeout=LONGEST)
            seen.add((case.operation.label, answer.status_code))
            assert answer.status_code < 500, f"{case.as_curl_command()}\n{answer.text}"
            if answer.status_code >= 400 and answer.status_code != 405:
                assert "\n" not in answer.json()["error"]

        each()
    answered = {label for label, status in seen if (status == 200) == (mode is GenerationMode.POSITIVE)}
    assert len(answered) >= 5, "the requests are of the kind that was asked for"


def _within_reach(case: Case) -> None:
    """Ask of the run and of latents that are there, at addresses that are not too long for any server."""
    for name, value in case.query.items():
        if isinstance(value, str):
            case.query[name] = value[:LONGEST_VALUE]
    if "run" in case.path_parameters:
        case.path_parameters["run"] = "small"
    latent = case.path_parameters.get("latent")
    if isinstance(latent, int):
        case.path_parameters["latent"] = latent % 64
