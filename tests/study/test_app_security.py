"""Who is let in, what forms are believed, and what a server of strangers' requests has to bear."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import pytest
import schemathesis
from app_world import CODES, Browser, settings_of
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from starlette.testclient import TestClient

from jaxmodpo.study.app.admin import AdminSettings, admin_application
from jaxmodpo.study.app.guard import MOST_BYTES, SECURITY_HEADERS
from jaxmodpo.study.app.store import Store
from jaxmodpo.study.app.web import rater_application

SECRET = "a secret of this test alone"
SECOND = "another secret of this test"


def at_first_item(store: Store) -> tuple[Browser, str]:
    pseudonym, token = store.raters.new_link()
    browser = Browser(store)
    browser.get(f"/r/{token}")
    browser.consent()
    return browser, pseudonym


FORM = {"criterion-1": "left", "criterion-2": "left"}


def test_a_form_of_another_rater_or_site_is_not_believed(store: Store):
    browser, pseudonym = at_first_item(store)
    other, _ = at_first_item(store)
    for token in ("", "0" * 64, "é", other.token()):
        answer = browser.client.post("/item/1", data={"form_token": token, **FORM})
        assert answer.status_code == 403
    answer = browser.client.post(
        "/item/1",
        data={"form_token": browser.token(), **FORM},
        headers={"Origin": "https://evil.example"},
    )
    assert answer.status_code == 403
    assert store.answers.of(store.raters.named(pseudonym)) == []


def test_an_answer_goes_to_the_rater_whose_session_it_is(store: Store):
    browser, pseudonym = at_first_item(store)
    other, other_pseudonym = at_first_item(store)
    browser.answer("left")
    other.get("/item/1")
    assert "checked" not in other.page.text
    assert store.answers.of(store.raters.named(other_pseudonym)) == []
    assert len(store.answers.of(store.raters.named(pseudonym))) == 2


def test_cookies_are_closed_to_scripts_and_behind_tls_to_plain_connections(store: Store):
    _, token = store.raters.new_link()
    for url, is_secure in (("http://testserver", False), ("https://testserver", True)):
        application = rater_application(store, settings_of(public_url=url))
        client = TestClient(application, base_url=url, follow_redirects=False)
        answer = client.get(f"/r/{token}")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie
        assert ("Secure" in cookie) == cookie.startswith("__Host-") == is_secure
        assert ("strict-transport-security" in answer.headers) == is_secure


def test_every_answer_has_the_security_headers(store: Store, monkeypatch, caplog):
    browser, _ = at_first_item(store)
    client = browser.client
    answers = [
        client.get("/item/1"),
        client.get("/nowhere"),
        client.get("/static/study.js"),
        client.post("/item/1", content=b"x" * (MOST_BYTES + 1)),
        client.post("/item/1", files={"reason": b"an upload"}),
        client.post("/item/1", json={"criterion-1": "left"}),
        client.get("/item/x"),
        client.delete("/item/1"),
        client.post("/item/1", content="a=%FF", headers={"content-type": FORM_TYPE}),
    ]
    monkeypatch.setattr(store.answers, "show", lambda *_: 1 / 0)
    with caplog.at_level(logging.CRITICAL):
        answers.append(client.get("/item/1"))
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 404, 200, 413, 415, 415, 422, 405, 400, 500]
    for answer in answers:
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value
        assert "Traceback" not in answer.text and "ZeroDivision" not in answer.text


FORM_TYPE = "application/x-www-form-urlencoded"


def test_a_body_that_hides_its_length_is_cut_off(store: Store):
    browser, _ = at_first_item(store)
    chunks = (b"x" * 4096 for _ in range(100))
    answer = browser.client.post("/item/1", content=chunks, headers={"content-type": FORM_TYPE})
    assert answer.status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/r/' OR 1=1 --",
        "/r/%00",
        "/r/" + "x" * 5000,
        "/static/..%2fweb.py",
        "/static/../tables.py",
        "/item/0",
        "/item/999999999999",
        "/item/-1",
        "/item/1%27",
        "/r/..%2f..%2fetc%2fpasswd",
    ],
)
def test_paths_that_try_to_lead_elsewhere_lead_nowhere(store: Store, path: str):
    browser, _ = at_first_item(store)
    answer = browser.client.get(path)
    assert answer.status_code in (404, 422)
    assert "root:" not in answer.text and "METADATA" not in answer.text


def test_an_item_that_is_not_open_yet_takes_no_answer(store: Store):
    browser, pseudonym = at_first_item(store)
    token = browser.token()
    answer = browser.client.post("/item/5/answer", data={"form_token": token, **FORM})
    assert answer.status_code == 409
    for side in ("a", "LEFT", "left' --"):
        form = {"form_token": token, "criterion-1": side}
        assert browser.client.post("/item/1", data=form).status_code == 400
    assert store.answers.of(store.raters.named(pseudonym)) == []


def test_another_host_name_is_refused(store: Store):
    client = TestClient(rater_application(store, settings_of()))
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_many_wrong_links_are_slowed_down(store: Store):
    client = TestClient(rater_application(store, settings_of()))
    statuses = [client.get(f"/r/wrong{number}").status_code for number in range(70)]
    assert statuses[0] == 404 and statuses[-1] == 429


# --------------------------------------------------------------------------- administration


def administration(store: Store) -> FastAPI:
    limits = AdminSettings(SECRET, SECOND, "https://study.example.org", ("testserver",))
    return admin_application(store, limits)


def administrator(store: Store) -> TestClient:
    return TestClient(administration(store))


def form_of(client: TestClient, **fields: Any) -> dict[str, Any]:
    page = client.get("/").text
    return {"form_token": page.split('name="form_token" value="')[1].split('"')[0], **fields}


def test_nobody_sees_the_administration_without_the_secret(store: Store):
    client = administrator(store)
    assert "Raters" not in client.get("/").text
    for path in ("/audit",):
        assert client.get(path).status_code == 401
    assert client.post("/export", data={"kind": ".csv"}).status_code == 401
    assert "This is not the secret" in client.post("/sign-in", data={"secret": "x"}).text
    for _ in range(12):
        last = client.post("/sign-in", data={"secret": "x"})
    assert last.status_code == 429
    raters = TestClient(rater_application(store, settings_of()))
    for path in ("/audit", "/export", "/sign-in", "/raters/x/revoke"):
        assert raters.get(path).status_code == 404


def test_the_administration_shows_progress_and_unblinds_for_the_second_secret_alone(store: Store):
    browser, pseudonym = at_first_item(store)
    browser.rate_all(store, pseudonym)
    client = administrator(store)
    page = client.post("/sign-in", data={"secret": SECRET}).text
    assert pseudonym in page and "8 of 8" in page
    assert "modpo" not in page and "Agreement so far" in page
    blinded = client.post("/export", data=form_of(client, kind=".csv", models="blinded"))
    assert '"side"' in blinded.text and '"choice"' not in blinded.text
    form = form_of(client, kind=".csv", models="tell")
    assert client.post("/export", data=form).status_code == 403
    told = client.post("/export", data={**form, "unblinding_secret": SECOND})
    assert '"choice"' in told.text
    events = [entry.event for entry in store.audit()]
    assert events[-3:] == ["blinded export", "wrong unblinding secret", "unblinded export"]
    assert "unblinded export" in client.get("/audit").text
    assert client.post("/export", data={"kind": ".csv"}).status_code == 403


def test_leaving_out_and_rejecting_are_two_decisions_with_reasons(store: Store):
    _, pseudonym = at_first_item(store)
    client = administrator(store)
    client.post("/sign-in", data={"secret": SECRET})
    path = f"/raters/{pseudonym}/decision"
    form = form_of(client, decision="exclude", reason="")
    assert client.post(path, data=form).status_code == 400
    client.post(path, data={**form, "reason": "answers in two seconds"})
    rater = store.raters.named(pseudonym)
    assert (rater.excluded, rater.rejected) == ("answers in two seconds", "")
    client.post(path, data={**form, "decision": "reject", "reason": "no text read"})
    client.post(path, data={**form, "decision": "exclude-undo"})
    rater = store.raters.named(pseudonym)
    assert (rater.excluded, rater.rejected) == ("", "no text read")


# --------------------------------------------------------------------------- by description


def routes_of(application: FastAPI) -> list[Any]:
    """Return every route, as the application describes it."""
    description = schemathesis.openapi.from_dict(application.openapi())
    results = list(description.get_all_operations())
    routes = [result.ok() for result in results if isinstance(result, Ok)]
    assert len(routes) == len(results)
    return routes


FUZZ = settings(
    max_examples=6,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


def sent(client: TestClient, case: Any, token: str, fields: Mapping[str, str]) -> int:
    """Send a request as it was drawn, with a form's token, and return the status.

    Args:
        client: who sends it.
        case: what was drawn.
        token: of the form; an empty one leaves what was drawn.
        fields: what the form holds besides, in place of what was drawn.
    """
    body = None
    if isinstance(case.body, dict):
        body = {**case.body, **fields}
        if token:
            body["form_token"] = token
    answer = client.request(case.method, case.formatted_path, params=case.query, data=body)
    assert answer.status_code < 500, (case.method, case.formatted_path, body)
    assert "Traceback" not in answer.text
    return answer.status_code


def test_no_request_to_raters_pages_that_the_description_allows_is_a_fault(store: Store):
    """Sends each route what its OpenAPI description allows, as nobody and as a rater."""
    browser, _ = at_first_item(store)
    application = rater_application(store, settings_of(codes=CODES))
    stranger = TestClient(application)
    token = browser.token()
    routes = routes_of(application)
    assert len(routes) >= 15
    for route in routes:

        @FUZZ
        @given(case=route.as_strategy())
        def send(case: Any) -> None:
            sent(stranger, case, "", {})
            sent(browser.client, case, token, {})

        send()


# What the administration's forms hold when they are sent as its pages send them.
KNOWN_FORMS: list[dict[str, str]] = [
    {},
    {"decision": "exclude", "reason": "answers in two seconds"},
    {"decision": "reject-undo"},
    {"kind": ".parquet", "models": "tell", "unblinding_secret": SECOND},
    {"kind": ".csv", "models": "blinded"},
    {"secret": SECRET},
]


def test_no_request_to_the_administration_that_its_description_allows_is_a_fault(store: Store):
    """Sends each route what its OpenAPI description allows, as nobody and as an administrator; also
    about a rater who is there, and with forms that the pages send.
    """
    browser, pseudonym = at_first_item(store)
    browser.answer("left")
    routes = routes_of(administration(store))
    assert len(routes) >= 9
    for route in routes:
        statuses = statuses_of(store, route, pseudonym)
        assert statuses - {401, 403}, f"nothing behind {route.path} was reached"


def statuses_of(store: Store, route: Any, pseudonym: str) -> set[int]:
    """Send a route of the administration what was drawn; return what an administrator got."""
    # Limits of wrong secrets are an application's own: of a new one they are whole.
    stranger = administrator(store)
    statuses: set[int] = set()

    @FUZZ
    @given(
        case=route.as_strategy(), fields=st.sampled_from(KNOWN_FORMS), is_known_rater=st.booleans()
    )
    def send(case: Any, fields: dict[str, str], is_known_rater: bool) -> None:
        admin = administrator(store)
        admin.post("/sign-in", data={"secret": SECRET})
        if is_known_rater and "pseudonym" in case.path_parameters:
            case.path_parameters["pseudonym"] = pseudonym
        refused = sent(stranger, case, "", fields)
        if route.path not in ("/", "/sign-in"):
            assert refused in (401, 422), route.path
        token = str(form_of(admin)["form_token"])
        statuses.add(sent(admin, case, token, fields))

    send()
    return statuses
