"""A small study and a rater in a browser, for tests of the web application."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient
from study_world import CRITERIA, pattern, sample_config, write_evaluation

from jaxmodpo.study.app.context import ProlificCodes, WebSettings
from jaxmodpo.study.app.resources import load_resources
from jaxmodpo.study.app.store import Store, open_store
from jaxmodpo.study.app.web import rater_application
from jaxmodpo.study.sample import study_sample

CODES = ProlificCodes("DONE1", "SCREEN2", "ATTEND3", "LEFT4")
ARRIVAL = "/prolific?PROLIFIC_PID={pid}&STUDY_ID=s1&SESSION_ID={session}"


def write_study(folder: Path, **settings: Any) -> Path:
    """Write a study file of four questions, with checks and practice, and return its path."""
    texts = settings.pop("texts_of", lambda model, number: f"{model} writes to {number}")
    evaluation = write_evaluation(folder, pattern(20), texts, settings.pop("replies_of_each", 1))
    fields: dict[str, Any] = {"questions": 4, "raters": 3, "stratify_by": (), **settings}
    study_sample(sample_config(evaluation, **fields))
    return folder / "study" / "study.json"


def settings_of(**fields: Any) -> WebSettings:
    values: dict[str, Any] = {
        "public_url": "http://testserver",
        "resources": load_resources("crisis_resources"),
        **fields,
    }
    return WebSettings(**values)


class Browser:
    """A rater's browser, which keeps cookies and follows redirects."""

    def __init__(self, store: Store, **fields: Any) -> None:
        self.client = TestClient(
            rater_application(store, settings_of(**fields)), raise_server_exceptions=True
        )
        self.page = self.client.get("/")

    def get(self, path: str) -> Any:
        self.page = self.client.get(path)
        return self.page

    def token(self) -> str:
        """Return what the page's form carries."""
        match = re.search(r'name="form_token" value="([0-9a-f]+)"', self.page.text)
        assert match, self.page.text
        return match[1]

    def post(self, path: str, **fields: Any) -> Any:
        """Send a form of the page that is open."""
        self.page = self.client.post(path, data={"form_token": self.token(), **fields})
        return self.page

    @property
    def path(self) -> str:
        return self.page.url.path

    def consent(self) -> None:
        assert self.path == "/welcome"
        statements = [str(number) for number in range(1, 4)]
        self.post("/consent", answer="consent", statement=statements)
        assert self.path == "/instructions"
        self.post("/begin")
        assert self.path == "/item/1"

    def answer(self, side: str = "left", action: str = "next") -> None:
        """Answer every criterion of the item that is open alike."""
        names = re.findall(r'name="(criterion-\d+)"', self.page.text)
        fields = dict.fromkeys(names, side)
        self.post(self.path, action=action, **fields)

    def rate_all(self, store: Store, pseudonym: str, *, fail_checks: bool = False) -> None:
        """Answer every item, checks as they say unless told not to, until the last page."""
        rater = store.raters.named(pseudonym)
        assert rater.assignment is not None
        places = store.study.assignments[rater.assignment - 1].places
        while self.path != "/finish":
            if self.path.endswith("/feedback"):
                number = int(self.path.split("/")[2])
                self.get(f"/item/{number + 1}")
            place = places[int(self.path.split("/")[2]) - 1]
            item = store.study.item(place.item_id)
            side = "left"
            if item.kind == "attention":
                side = right_side(item.expected[CRITERIA[0]], place.a_is_left)
                if fail_checks:
                    side = "right" if side == "left" else "left"
            self.answer(side)


def right_side(choice: str, a_is_left: bool) -> str:
    if choice == "equal":
        return "equal"
    return "left" if (choice == "a") == a_is_left else "right"


def opened(study: Path, **fields: Any) -> Store:
    return open_store(study, None, create=True, **fields)
