"""What raters can reach tells no model, and texts that would run, load or turn something do not."""

from __future__ import annotations

import dataclasses
import re
from collections import deque
from html import unescape
from pathlib import Path

import pytest
from app_world import CODES, Browser, opened, write_study

from jaxmodpo.results.versioned import write_result
from jaxmodpo.study.app.store import Store
from jaxmodpo.study.study_file import StudyFile, read_study

MODELS = ("Zorblatt-7", "Quuxon-9")

HOSTILE = (
    "</p></div><script>window.taken=1</script><img src=x onerror=window.taken=1>"
    "<style>*{display:none}</style><a href='javascript:alert(1)'>x</a>"
    " \u202e \u2066 \x00\x1b[31m pаypal {{ 7*7 }} {% raw %} ' \" &lt;b&gt; http://example.org/x"
)


def renamed(path: Path) -> StudyFile:
    """Give a study names and ids that stand nowhere by chance, and return it."""
    study = read_study(path)
    items = tuple(
        dataclasses.replace(item, question_id=f"QUESTION-{number}" if item.question_id else "")
        for number, item in enumerate(study.items)
    )
    study = dataclasses.replace(study, models=MODELS, items=items)
    write_result(path, study)
    return study


def telling(study: StudyFile) -> list[str]:
    """Return what no rater may read."""
    ids = [item.item_id for item in study.items]
    question_ids = [item.question_id for item in study.items if item.question_id]
    fields = ["reply_a", "reply_b", "a_is_left", "question_id", "item_id", "assignment"]
    hashes = [study.evaluation_sha256, str(study.seed)]
    return [*MODELS, *ids, *question_ids, *fields, *hashes, "attention"]


def everything_reached(browser: Browser) -> dict[str, str]:
    """Follow every link, form target and file from the start, and return all that came back, with
    its headers, by path.
    """
    texts: dict[str, str] = {}
    waiting = deque(["/", "/study", "/welcome", "/instructions", "/finish", "/openapi.json"])
    waiting.extend(f"/item/{position}" for position in range(1, 12))
    while waiting:
        path = waiting.popleft()
        if path in texts:
            continue
        answer = browser.client.get(path, follow_redirects=False)
        texts[path] = f"{answer.status_code}\n{answer.headers}\n{answer.text}"
        texts[path] += str(dict(browser.client.cookies))
        links = re.findall(r'(?:href|src|action|data-autosave)="(/[^"]*)"', answer.text)
        waiting.extend(unescape(link) for link in links)
        if "location" in answer.headers:
            waiting.append(answer.headers["location"])
    return texts


@pytest.mark.parametrize("finishes", [False, True])
def test_nothing_that_a_rater_can_reach_tells_a_model(tmp_path: Path, finishes: bool):
    path = write_study(tmp_path, seed=7_306_502_417_660_912_385)
    study = renamed(path)
    store = opened(path)
    pseudonym, token = store.raters.new_link()
    browser = Browser(store, codes=CODES)
    browser.get(f"/r/{token}")
    texts = everything_reached(browser)
    browser.get("/welcome")
    browser.consent()
    browser.rate_all(store, pseudonym)
    texts |= {f"then {at}": text for at, text in everything_reached(browser).items()}
    if finishes:
        browser.get("/finish")
        browser.post("/finish")
        texts |= {f"last {at}": text for at, text in everything_reached(browser).items()}
    assert sum(at.startswith("then /item/") and "200\n" in text for at, text in texts.items()) >= 8
    for at, text in texts.items():
        for word in telling(study):
            assert word not in text, f"{at} tells {word}"
    store.close()


def shown_replies(store: Store, browser: Browser) -> list[str]:
    """Return which reply stands on the left of each question, as its writer's name."""
    lefts: list[str] = []
    for position in range(1, len(store.study.items) + 1):
        text = browser.get(f"/item/{position}").text
        left_reply = re.search(r'id="reply-1">Reply A</h2>(.*?)</section>', text, re.DOTALL)
        assert left_reply
        match = re.search(r"(kind|plain) writes to", left_reply[1])
        if match:
            lefts.append(match[1])
    return lefts


def test_sides_are_those_that_were_drawn_for_the_rater(tmp_path: Path):
    store = opened(write_study(tmp_path))
    for number in range(3):
        pseudonym, token = store.raters.new_link()
        browser = Browser(store)
        browser.get(f"/r/{token}")
        browser.consent()
        browser.rate_all(store, pseudonym)
        sides = [
            "kind" if position.a_is_left else "plain"
            for position in store.study.assignments[number].places
            if store.study.item(position.item_id).kind == "question"
        ]
        assert shown_replies(store, browser) == sides
    store.close()


def test_hostile_texts_are_shown_and_do_nothing(tmp_path: Path):
    path = write_study(tmp_path)
    study = read_study(path)
    items = tuple(
        dataclasses.replace(
            item, post=HOSTILE, reply_a=HOSTILE, reply_b=HOSTILE, explanation=HOSTILE
        )
        for item in study.items
    )
    criteria = tuple(
        dataclasses.replace(criterion, title=HOSTILE, description=HOSTILE)
        for criterion in study.criteria
    )
    texts = dataclasses.replace(study.texts, information=HOSTILE, instructions=HOSTILE)
    hostile = dataclasses.replace(study, title=HOSTILE, items=items, criteria=criteria, texts=texts)
    write_result(path, hostile)
    store = opened(path)
    _, token = store.raters.new_link(HOSTILE)
    browser = Browser(store)
    pages = [browser.get(f"/r/{token}").text]
    browser.consent()
    pages.append(browser.page.text)
    browser.post("/item/1", **{"criterion-1": "left", "criterion-2": "left"}, reason=HOSTILE)
    pages += [browser.page.text, browser.get("/item/1").text, browser.get("/instructions").text]
    for page in pages:
        assert page.count("<script") == 1 and "<style" not in page and "<img" not in page
        assert "javascript:alert" not in re.findall(r'href="([^"]*)"', page)
        assert "\x00" not in page and "\x1b" not in page
        assert "{{ 7*7 }}" in page or "49" not in page
        assert not re.search(r'(?:src|href|action)="(?!/|#)', page), "nothing is loaded elsewhere"
    assert "&lt;script&gt;window.taken=1" in pages[1]
    store.close()
