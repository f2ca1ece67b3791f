"""What may leave this machine, and how."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import openai
import pytest

from jaxmodpo.endpoints.address import checked_key, make_client
from jaxmodpo.errors import UserError


def key(base_url: str, allowed: bool = True) -> str:
    return checked_key(base_url, "A_KEY", texts="people's posts", allowed=allowed, flag="--send-it")


@pytest.mark.parametrize(
    ("base_url", "warned"),
    [
        ("http://10.0.0.5:8000/v1", True),
        ("https://api.example.com/v1", False),
        ("http://127.0.0.1:8000/v1", False),
    ],
)
def test_a_warning_says_what_goes_to_another_machine_unencrypted(
    base_url, warned, monkeypatch, caplog
):
    monkeypatch.setenv("A_KEY", "k-123")
    with caplog.at_level(logging.WARNING):
        assert key(base_url) == "k-123"
    assert bool(caplog.messages) == warned
    assert all(
        "people's posts and the key go to 10.0.0.5 unencrypted" in said for said in caplog.messages
    )


def test_texts_stay_here_and_a_foreign_endpoint_needs_a_key(monkeypatch):
    monkeypatch.delenv("A_KEY", raising=False)
    assert key("http://localhost:1/v1", allowed=False) == ""
    with pytest.raises(
        UserError, match=r"people's posts would be sent to api\.example\.com; give --send-it"
    ):
        key("https://api.example.com/v1", allowed=False)
    with pytest.raises(UserError, match=r"A_KEY holds no key for https://api\.example\.com/v1"):
        key("https://api.example.com/v1")


class _Elsewhere(BaseHTTPRequestHandler):
    seen: list[str]

    def do_POST(self) -> None:
        self.seen.append(self.path)
        self.send_response(307)
        self.send_header("Location", "/v1/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def redirecting() -> Iterator[tuple[str, list[str]]]:
    handler: Any = type("Handler", (_Elsewhere,), {"seen": []})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", handler.seen
        server.shutdown()


def test_no_redirect_is_followed(redirecting):
    url, seen = redirecting
    client = make_client(url, "", timeout=5.0, max_retries=0)
    with pytest.raises(openai.APIStatusError):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a post"}])
    assert seen == ["/v1/chat/completions"]
