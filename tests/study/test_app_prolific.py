"""Raters from Prolific: codes, quotas, and what it signs."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
from app_world import ARRIVAL, CODES, Browser, opened
from cryptography.hazmat.primitives.asymmetric import rsa

from jaxmodpo.errors import UserError
from jaxmodpo.study.app.places import Quota
from jaxmodpo.study.app.signed_entry import ISSUER, KeyFile, KeysAway, SignedEntries
from jaxmodpo.study.app.store import Store
from jaxmodpo.study.serve import prolific_quotas


@pytest.fixture
def opened_copy(study: Path, tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Open the study with settings of a test's own; it is closed afterwards."""
    stores: list[Store] = []

    def open_copy(**settings: Any) -> Store:
        copy = tmp_path / "study.json"
        copy.write_bytes(study.read_bytes())
        stores.append(opened(copy, **settings))
        return stores[-1]

    yield open_copy
    for store in stores:
        store.close()


def from_prolific(store: Store, pid: str, session: str = "x", study: str = "s1") -> Browser:
    browser = Browser(store, codes=CODES)
    browser.get(ARRIVAL.format(pid=pid, session=session).replace("s1", study))
    return browser


def test_a_prolific_rater_hands_in_the_code_of_how_it_ended(store: Store):
    for pid, fails, code in (("p1", False, "DONE1"), ("p2", True, "ATTEND3")):
        browser = from_prolific(store, pid)
        browser.consent()
        pseudonym = store.raters.all()[-1].pseudonym
        browser.rate_all(store, pseudonym, fail_checks=fails)
        browser.post("/finish")
        assert code in browser.page.text
        rater = store.raters.named(pseudonym)
        assert bool(rater.excluded) == fails and rater.rejected == ""
    browser = from_prolific(store, "p3")
    browser.post("/consent", answer="decline")
    assert "LEFT4" in browser.page.text


def test_a_prolific_rater_resumes_with_the_same_submission_alone(store: Store):
    browser = from_prolific(store, "p1")
    browser.consent()
    assert from_prolific(store, "p1").path == "/item/1"
    other = from_prolific(store, "p1", session="another")
    assert other.page.status_code == 403 and len(store.raters.all()) == 1


def test_who_deleted_everything_is_a_new_rater_and_who_did_not_is_known(store: Store):
    for pid, answers in (("p1", "delete"), ("p2", "keep")):
        browser = from_prolific(store, pid)
        browser.consent()
        browser.get("/withdraw")
        browser.post("/withdraw", answers=answers)
    # Nothing is left by which the first could be known.
    assert from_prolific(store, "p1").path == "/welcome"
    assert from_prolific(store, "p2").path == "/end"
    assert [rater.status for rater in store.raters.all()] == ["withdrawn", "withdrawn", "invited"]


@pytest.mark.parametrize("query", ["", "?PROLIFIC_PID=a&STUDY_ID=b", "?PROLIFIC_PID=a%20b"])
def test_an_address_that_is_not_prolifics_makes_no_rater(store: Store, query: str):
    browser = Browser(store, codes=CODES)
    assert browser.get(f"/prolific{query}").status_code == 400
    assert store.raters.all() == []


def test_the_quota_is_kept_and_who_comes_too_late_is_screened_out(store: Store):
    for number in range(3):
        from_prolific(store, f"p{number}").consent()
    late = from_prolific(store, "late")
    assert late.path == "/full" and "SCREEN2" in late.page.text


def test_a_place_left_for_too_long_goes_to_the_next_rater(opened_copy):
    store = opened_copy(abandoned_after=0.0)
    first = from_prolific(store, "p0")
    first.consent()
    for number in range(1, 4):
        from_prolific(store, f"p{number}").consent()
    first_rater = store.raters.all()[0]
    assert (first_rater.status, first_rater.holds_place) == ("abandoned", False)
    assert "SCREEN2" in first.get("/study").text
    places = [rater.assignment for rater in store.raters.all() if rater.holds_place]
    assert sorted(filter(None, places)) == [1, 2, 3]


# --------------------------------------------------------------------------- quotas


def test_as_many_raters_come_in_as_are_wanted_and_others_hand_in_that_it_is_full(opened_copy):
    store = opened_copy(quota=Quota(in_all=1))
    from_prolific(store, "p1").consent()
    late = Browser(store, codes=dataclasses.replace(CODES, full="FULL5"))
    late.get(ARRIVAL.format(pid="late", session="x"))
    assert late.path == "/full" and "FULL5" in late.page.text
    with pytest.raises(UserError, match="all 1 raters that are wanted have a place"):
        store.raters.new_link()


def test_each_study_at_prolific_has_a_quota_of_its_own(opened_copy):
    store = opened_copy(quota=Quota(by_study={"uk": 1}))
    from_prolific(store, "p1", study="uk").consent()
    assert from_prolific(store, "p2", study="uk").path == "/full"
    from_prolific(store, "p3", study="us").consent()
    from_prolific(store, "p4", study="us").consent()
    assert from_prolific(store, "p5", study="us").path == "/full"


def test_a_full_study_takes_back_a_left_place_of_its_own_raters_alone(opened_copy):
    store = opened_copy(quota=Quota(by_study={"uk": 1}), abandoned_after=0.0)
    from_prolific(store, "p1", study="us").consent()
    from_prolific(store, "p2", study="uk").consent()
    from_prolific(store, "p3", study="uk").consent()
    assert [rater.status for rater in store.raters.all()] == ["active", "abandoned", "active"]


def test_the_place_of_a_rater_who_does_not_count_goes_to_the_next(opened_copy):
    store = opened_copy(quota=Quota(in_all=1))
    first = from_prolific(store, "p1")
    first.consent()
    pseudonym = store.raters.all()[0].pseudonym
    first.rate_all(store, pseudonym, fail_checks=True)
    first.post("/finish")
    assert not store.raters.named(pseudonym).holds_place
    from_prolific(store, "p2").consent()
    assert from_prolific(store, "p3").path == "/full"
    store.raters.decide(store.raters.named(pseudonym), "excluded", "")
    assert not store.raters.named(pseudonym).holds_place, "somebody else has it by now"


def test_leaving_a_finished_rater_out_frees_the_place_until_that_is_taken_back(store: Store):
    browser = from_prolific(store, "p1")
    browser.consent()
    pseudonym = store.raters.all()[0].pseudonym
    browser.rate_all(store, pseudonym)
    browser.post("/finish")
    for reason, holds_place in (("too fast", False), ("", True)):
        store.raters.decide(store.raters.named(pseudonym), "excluded", reason)
        assert store.raters.named(pseudonym).holds_place == holds_place


def test_another_study_at_prolific_is_told_so(store: Store):
    browser = Browser(store, codes=CODES, prolific_studies=frozenset({"uk"}))
    page = browser.get(ARRIVAL.format(pid="p1", session="x"))
    assert page.status_code == 403 and "another study on Prolific" in page.text
    assert store.raters.all() == []


def test_quotas_are_read_and_wrong_ones_refused():
    assert prolific_quotas(("65f=40", "66a")) == {"65f": 40, "66a": 0}
    for texts in (("65f=",), ("65f=0",), ("65f=many",), ("=4",), ("a b",), ("65f", "65f=2")):
        with pytest.raises(UserError, match="--prolific-studies"):
            prolific_quotas(texts)


# --------------------------------------------------------------------------- signed entries

KEY = rsa.generate_private_key(65537, 2048)


def write_keys(path: Path, **keys: rsa.RSAPrivateKey) -> Path:
    """Write the public halves of keys, by id."""
    described: list[dict[str, Any]] = []
    for key_id, key in keys.items():
        public = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
        described.append({**public, "kid": key_id, "alg": "RS256", "use": "sig"})
    path.write_text(json.dumps({"keys": described}))
    return path


def token(key: Any = KEY, algorithm: str = "RS256", key_id: str = "k1", **changes: Any) -> str:
    """Return what Prolific would sign of p1, with changes."""
    claims: dict[str, Any] = {
        "iss": ISSUER,
        "aud": "https://testserver/prolific",
        "sub": "x",
        "exp": time.time() + 300,
        "prolific": {
            "PROLIFIC_PID": "p1",
            "STUDY_ID": "s1",
            "SESSION_ID": "x",
            "workspace_id": "w",
        },
    }
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers={"kid": key_id})


@pytest.fixture
def signed(tmp_path: Path) -> SignedEntries:
    return SignedEntries(KeyFile(str(write_keys(tmp_path / "keys.json", k1=KEY))), "testserver")


def test_the_participant_is_the_one_that_prolific_signed(store: Store, signed: SignedEntries):
    browser = Browser(store, codes=CODES, signed=signed)
    # What the address says beside the token may have been written by anybody.
    browser.get(ARRIVAL.format(pid="somebody", session="else") + f"&prolific_token={token()}")
    assert browser.path == "/welcome"
    arrivals = store.database.reading(
        lambda connection: connection.exec_driver_sql(
            "SELECT prolific_pid, prolific_session FROM participants"
        ).all()
    )
    assert [tuple(row) for row in arrivals] == [("p1", "x")]


@pytest.mark.parametrize("audience", ["testserver", "https://testserver", ["other", "testserver"]])
def test_a_token_may_name_the_study_by_host_or_address(signed: SignedEntries, audience: Any):
    assert signed.arrival(token(aud=audience)).pid == "p1"


OTHER_KEY = rsa.generate_private_key(65537, 2048)
# Made by the test itself: a long run's tests come after a token made here has run out.
FORGED: Mapping[str, Callable[[], str]] = {
    "no token": lambda: "",
    "no token's form": lambda: "a.b.c",
    "signed by another key": lambda: token(OTHER_KEY),
    "signed by nobody": lambda: token("", algorithm="none"),
    "signed with what is public": lambda: token("x" * 32, algorithm="HS256"),
    "a key that there is not": lambda: token(key_id="k2"),
    "for another site": lambda: token(aud="https://evil.example/prolific"),
    "for a site whose name begins alike": lambda: token(aud="https://testserver.evil.example"),
    "by another issuer": lambda: token(iss="https://evil.example"),
    "without an end": lambda: token(exp=None),
    "without parameters": lambda: token(prolific=None),
    "of another submission": lambda: token(sub="y"),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_what_prolific_did_not_sign_makes_no_rater(
    store: Store, signed: SignedEntries, forge: Callable[[], str]
):
    browser = Browser(store, codes=CODES, signed=signed)
    page = browser.get(ARRIVAL.format(pid="p1", session="x") + f"&prolific_token={forge()}")
    assert page.status_code == 403 and "does not come from Prolific" in page.text
    assert store.raters.all() == []


def test_a_token_that_has_run_out_asks_to_come_again(store: Store, signed: SignedEntries):
    browser = Browser(store, codes=CODES, signed=signed)
    page = browser.get(f"/prolific?prolific_token={token(exp=time.time() - 3600)}")
    assert page.status_code == 403 and "has run out" in page.text


def test_keys_are_read_again_after_a_minute_for_a_new_one_and_outlive_a_lost_file(tmp_path: Path):
    now = 0.0
    path = write_keys(tmp_path / "keys.json", k1=KEY)
    keys = KeyFile(str(path), monotonic=lambda: now)
    entries = SignedEntries(keys, "testserver")
    assert entries.arrival(token()).pid == "p1"
    write_keys(path, k1=KEY, k2=OTHER_KEY)
    assert keys.key("k2") is None
    now = 61.0
    assert keys.key("k2") is not None
    path.unlink()
    now = 90_000.0
    assert entries.arrival(token()).pid == "p1"


def test_keys_that_could_never_be_read_are_no_fault_of_the_participant(
    store: Store, tmp_path: Path
):
    signed = SignedEntries(KeyFile(str(tmp_path / "missing.json")), "testserver")
    browser = Browser(store, codes=CODES, signed=signed)
    page = browser.get(f"/prolific?prolific_token={token()}")
    assert page.status_code == 503 and "cannot be checked just now" in page.text


@pytest.mark.parametrize(
    "content", [None, "", "{}", '{"keys": []}', "\xff", '{"keys": [{"kty": 1}]}']
)
def test_a_file_without_keys_is_refused_before_serving(tmp_path: Path, content: str | None):
    path = tmp_path / "keys.json"
    if content is not None:
        path.write_text(content, "latin-1")
    with pytest.raises(UserError, match=r"--prolific-keys .* is not a set of public keys"):
        KeyFile(str(path)).check()


def test_keys_come_from_an_https_address_too_which_may_be_away_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    now = 0.0
    address = "https://keys.example/jwks.json"
    keys = KeyFile(address, monotonic=lambda: now)
    path = tmp_path / "keys.json"

    def answer(asked: str, timeout: float) -> Any:
        assert asked == address and timeout > 0
        return path.open("rb")

    monkeypatch.setattr("urllib.request.urlopen", answer)
    keys.check()
    with pytest.raises(KeysAway):
        keys.key("k1")
    now = 30.0
    with pytest.raises(KeysAway):  # while it is not asked again
        keys.key("k1")
    write_keys(path, k1=KEY)
    now = 61.0
    assert keys.key("k1") is not None
