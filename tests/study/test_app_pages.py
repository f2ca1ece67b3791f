"""A rater's way through a study, in process: links, consent, items, pause, withdrawal, the end."""

from __future__ import annotations

from app_world import Browser
from study_world import CRITERIA

from jaxmodpo.study.app.store import Store


def arrived(store: Store) -> tuple[Browser, str, str]:
    """Return a rater's browser at the first item, the pseudonym and the link's token."""
    pseudonym, token = store.raters.new_link("Dr. A")
    browser = Browser(store)
    browser.get(f"/r/{token}")
    browser.consent()
    return browser, pseudonym, token


def test_a_clinician_goes_through_the_whole_study(store: Store):
    browser, pseudonym, _ = arrived(store)
    browser.rate_all(store, pseudonym)
    browser.post("/finish")
    assert "Thank you" in browser.page.text
    rater = store.raters.named(pseudonym)
    assert (rater.status, rater.excluded, rater.consent_version) == ("finished", "", "1")
    answers = store.answers.of(rater)
    assert len(answers) == len(store.study.items) * len(CRITERIA)
    assert {answer.side for answer in answers if answer.kind == "question"} == {"left"}
    sides = {place.item_id: place.a_is_left for place in store.study.assignments[0].places}
    for answer in answers:
        if answer.kind == "question":
            assert answer.choice == ("a" if sides[answer.item_id] else "b")


def test_nobody_gets_an_item_without_consent_and_instructions(store: Store):
    _, token = store.raters.new_link()
    browser = Browser(store)
    browser.get(f"/r/{token}")
    assert browser.get("/item/1").url.path == "/welcome"
    browser.post("/consent", answer="consent", statement=["1"])
    assert browser.path == "/welcome" and "tick every statement" in browser.page.text
    browser.post("/consent", answer="consent", statement=["1", "2", "3"])
    assert browser.get("/item/1").url.path == "/instructions"


def test_who_does_not_consent_leaves_the_place(store: Store):
    pseudonym, token = store.raters.new_link()
    browser = Browser(store)
    browser.get(f"/r/{token}")
    browser.post("/consent", answer="decline")
    rater = store.raters.named(pseudonym)
    assert (browser.path, rater.status, rater.holds_place) == ("/end", "declined", False)


def test_an_item_that_is_not_whole_is_shown_again_with_what_lacks(store: Store):
    browser, pseudonym, _ = arrived(store)
    browser.post("/item/1", **{"criterion-1": "left"}, action="next")
    assert browser.path == "/item/1" and "Still to be answered" in browser.page.text
    rater = store.raters.named(pseudonym)
    assert [answer.side for answer in store.answers.of(rater)] == ["left"]
    assert browser.get("/item/2").url.path == "/item/1"


def test_the_same_link_goes_on_in_another_browser_with_what_was_answered(store: Store):
    browser, _, token = arrived(store)
    browser.post("/item/1", **{"criterion-1": "equal"}, reason="too <b>long</b>", action="pause")
    assert "Everything that you answered is stored" in browser.page.text
    other = Browser(store)
    other.get(f"/r/{token}")
    assert other.path == "/item/1"
    assert 'name="criterion-1" value="equal" checked' in other.page.text
    assert "too &lt;b&gt;long&lt;/b&gt;" in other.page.text


def test_one_answer_is_stored_at_once_and_twice_the_same_is_one(store: Store):
    browser, pseudonym, _ = arrived(store)
    token = browser.token()
    for side in ("left", "left", "right"):
        answer = browser.client.post(
            "/item/1/answer", data={"form_token": token, "criterion-2": side}
        )
        assert answer.json() == {"stored": True}
    rater = store.raters.named(pseudonym)
    assert [answer.side for answer in store.answers.of(rater)] == ["right"]
    assert store.answers.revisions() == {pseudonym: 1}


def test_two_tabs_of_one_rater_keep_what_was_sent_last(store: Store):
    browser, pseudonym, _ = arrived(store)
    browser.answer("left")
    assert browser.path == "/item/1/feedback"
    browser.get("/item/1")
    browser.answer("right")
    rater = store.raters.named(pseudonym)
    assert {answer.side for answer in store.answers.of(rater)} == {"right"}


def test_withdrawing_with_deletion_leaves_no_answer_and_no_way_to_the_person(store: Store):
    browser, pseudonym, token = arrived(store)
    browser.answer("left")
    browser.get("/item/1")
    browser.answer("right")
    browser.get("/withdraw")
    browser.post("/withdraw", answers="delete")
    rater = store.raters.named(pseudonym)
    assert rater.status == "withdrawn" and not rater.holds_place
    assert store.answers.of(rater) == [] and store.answers.revisions() == {}
    assert store.raters.labels() == {}
    assert browser.get("/item/1").url.path == "/end"
    assert browser.get(f"/r/{token}").url.path == "/end"


def test_a_revoked_link_leads_nowhere_and_frees_its_place(store: Store):
    browser, pseudonym, token = arrived(store)
    store.raters.revoke(store.raters.named(pseudonym))
    assert browser.get("/item/1").status_code == 401
    assert browser.get(f"/r/{token}").status_code == 404
    links = [store.raters.new_link() for _ in store.study.assignments]
    assert len(links) == 3


def test_who_withdrew_and_deleted_comes_to_the_end_by_the_old_link(store: Store):
    browser, pseudonym, token = arrived(store)
    browser.answer("left")
    browser.get("/withdraw")
    browser.post("/withdraw", answers="delete")
    again = Browser(store)
    assert again.get(f"/r/{token}").url.path == "/end"
    assert store.raters.named(pseudonym).status == "withdrawn" and store.answers.all() == []
    assert [rater.pseudonym for rater in store.raters.all()] == [pseudonym]
