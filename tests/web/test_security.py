"""Only this machine's own pages are answered, and what is answered may do no more than draw itself."""

import pytest
from fastapi.testclient import TestClient

from unweave.web.security import LARGEST_BODY


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:7001", "127.0.0.1", "127.0.0.1:7002", "127.0.0.1.evil.test:7001", ""]
)
def test_another_name_or_port_is_refused(client: TestClient, host: str) -> None:
    answer = client.get("/index.json", headers={"host": host})
    assert answer.status_code == 403 and "answers at 127.0.0.1:7001" in answer.json()["error"]


@pytest.mark.parametrize("host", ["localhost:7001", "127.0.0.1:7001", "[::1]:7001"])
def test_this_machines_own_names_are_answered(client: TestClient, host: str) -> None:
    own = {"host": host, "origin": f"http://{host}"}
    assert client.get("/index.json", headers=own).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://127.0.0.1:7002", "https://127.0.0.1:7001"])
def test_a_page_of_another_origin_can_change_nothing(client: TestClient, origin: str) -> None:
    answer = client.put("/runs/small/latents/7/label", json={"label": "theirs"}, headers={"origin": origin})
    assert answer.status_code == 403
    assert client.get("/runs/small/latents/7.json").json()["written"]["label"] != "theirs"


@pytest.mark.parametrize(
    "path", ["/", "/index.json", "/runs/small", "/static/app.css", "/no-such-page", "/openapi.json"]
)
def test_every_answer_carries_the_policy(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "run", ["..", "..%2f..%2fetc", "%2e%2e", "~..", "sub/bare", "small%00", "nul%00l", "~~", "other~"]
)
def test_a_run_is_found_by_its_name_in_the_listing_only(client: TestClient, run: str) -> None:
    for path in (f"/runs/{run}.json", f"/runs/{run}/latents/7.json", f"/runs/{run}/lists.json"):
        assert client.get(path).status_code == 404


def test_files_outside_the_static_folder_are_not_served(client: TestClient) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"):
        assert client.get(path).status_code == 404


def test_a_body_that_is_too_large_is_refused_before_it_is_read_whole(client: TestClient) -> None:
    parts = (b"x" * 100_000 for _ in range(2 + LARGEST_BODY // 100_000))
    answer = client.post("/runs/small/latents/7/test", content=parts, headers={"content-type": "application/json"})
    assert answer.status_code == 413 and "at most" in answer.json()["error"]
