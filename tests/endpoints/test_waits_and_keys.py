"""What may leave this machine, how, and how long an endpoint asks to wait."""

from __future__ import annotations

import email.utils
import logging
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import openai
import pytest

from jaxmodpo.endpoints.address import checked_key, make_client
from jaxmodpo.endpoints.waits import exhausted_for, retry_after
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
    handler = type("Handler", (_Elsewhere,), {"seen": []})
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


# --------------------------------------------------------------------------- how long to wait


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "0"}, None),
        ({"retry-after-ms": "0"}, None),
        ({"retry-after": "Mon, 01 Jan 2001 00:00:00 GMT"}, None),
        (
            {
                "date": "Mon, 01 Jan 2001 00:00:00 GMT",
                "retry-after": "Mon, 01 Jan 2001 00:00:03 GMT",
            },
            3.0,
        ),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after-ms": "nan", "retry-after": "2"}, 2.0),
        ({"retry-after": "inf"}, None),
    ],
)
def test_the_wait_that_is_asked_for(headers, seconds):
    assert retry_after(headers) == seconds


def test_a_date_to_wait_for_is_seconds_from_now():
    date = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert retry_after({"retry-after": date}) == pytest.approx(30, abs=1.5)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "1s"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1m2.5s"}, 62.5),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h0m1s"}, 3601.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1s and more"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "..s"}, None),
        ({"x-ratelimit-remaining-tokens": "0"}, None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "2s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "3s",
            },
            3.0,
        ),
    ],
)
def test_for_how_long_an_endpoint_has_nothing_left(headers, seconds):
    assert exhausted_for(headers) == seconds
