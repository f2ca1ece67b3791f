"""A classifier's scores are those of transformers, and labels that mean nothing are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_scorers import TEXTS, tiny_classifier

from jaxmodpo.errors import UserError
from jaxmodpo.judging.judge import Answer, Call, Request
from jaxmodpo.records import Candidate
from jaxmodpo.toxicity.classifier import activation_of, classifier_scorer, label_names
from jaxmodpo.toxicity.scorers import LocalScorer, shown_scores


def calls(texts: tuple[str, ...], scorer: LocalScorer) -> list[Call]:
    requests = [
        Request("score", "q", "a post", "", "", scorer.criteria, (Candidate(str(n), text),))
        for n, text in enumerate(texts)
    ]
    return [Call(request.responses[0].response_id, request) for request in requests]


def scores(scorer: LocalScorer, texts: tuple[str, ...] = TEXTS) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    scorer.ask(iter(calls(texts, scorer)), lambda call, answer: answers.update({call.key: answer}))
    return answers


@pytest.mark.slow(seconds=8)
@pytest.mark.parametrize(
    ("problem", "labels"),
    [
        ("multi_label_classification", ("toxicity", "insult", "threat")),
        ("single_label_classification", ("neutral", "toxic")),
        (None, ("neutral", "toxic")),
        (None, ("toxic",)),
    ],
)
def test_scores_equal_those_of_transformers(tmp_path: Path, problem, labels):
    torch = pytest.importorskip("torch", reason="the reference model needs torch")
    import transformers

    folder = tiny_classifier(tmp_path / "m", problem_type=problem, labels=labels)
    scorer = classifier_scorer(folder, batch_size=2)
    answers = scores(scorer)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    sigmoid = problem == "multi_label_classification" or len(labels) == 1
    for number, text in enumerate(TEXTS):
        ids = tokenizer.encode(text, add_special_tokens=False)
        tokens = [tokenizer.cls_token_id, *ids, tokenizer.sep_token_id]
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0]
        expected = torch.sigmoid(logits) if sigmoid else torch.softmax(logits, -1)
        answer_scores = answers[str(number)].scores
        assert list(answer_scores) == list(labels)
        assert np.abs(np.array(list(answer_scores.values())) - expected.numpy()).max() < 1e-5


def test_a_text_that_is_too_long_is_cut_and_told(tmp_path):
    folder = tiny_classifier(tmp_path / "m")
    short = classifier_scorer(folder, batch_size=4, max_length=8)
    first, second, _ = [call.request for call in calls(TEXTS, short)]
    assert (short.is_cut(first), short.is_cut(second)) == (False, True)
    assert len(short.tokens(second) or ()) == 8
    # As many tokens as the model has positions for, however many the settings ask for.
    longest = classifier_scorer(folder, batch_size=1, max_length=512)
    long_text = " ".join(TEXTS * 9)
    assert scores(longest, (long_text,))["0"].status == "valid"


def test_the_identity_knows_the_weights_and_the_length(tmp_path):
    folder = tiny_classifier(tmp_path / "m")
    one, other = (classifier_scorer(folder, batch_size=1, max_length=n) for n in (8, 9))
    assert one.identity != other.identity and "sigmoid; 8 tokens" in one.identity


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"problem_type": "regression"}, "gives rewards or other quantities"),
        ({"reward_max_length": 512}, "gives rewards or other quantities"),
        ({"problem_type": "tagging"}, "problem_type 'tagging' is not supported"),
        (
            {"problem_type": "single_label_classification", "labels": ("toxic",)},
            "which every text then has with certainty",
        ),
        ({"labels": ("toxic", "toxic")}, "no name twice"),
        ({"architectures": ["RobertaModel"]}, "is no RoBERTa classifier"),
    ],
)
def test_what_gives_no_probabilities_is_refused(tmp_path, settings, message):
    folder = tiny_classifier(tmp_path / "m", **settings)
    with pytest.raises(UserError, match=message):
        classifier_scorer(folder, batch_size=1)


def test_scores_are_shown_by_name_and_unknown_ones_are_refused_with_the_nearest(tmp_path):
    scorer = classifier_scorer(tiny_classifier(tmp_path / "m"), batch_size=1)
    assert shown_scores(scorer, (), "") == (("toxicity", "insult", "threat"), "toxicity")
    assert shown_scores(scorer, ("threat", "insult"), "threat") == (("insult", "threat"), "threat")
    assert shown_scores(scorer, ("threat",), "") == (("threat",), "threat")
    for labels, headline, message in (
        (("insults",), "", "--labels: there is no score 'insults'; .*'insult'"),
        (("insult",), "threat", "--headline: there is no score 'threat'"),
        (("insult", "threat"), "", "none is called toxic or toxicity; say with --headline"),
    ):
        with pytest.raises(UserError, match=message):
            shown_scores(scorer, labels, headline)


def test_a_model_without_names_or_problem_type_is_read_as_transformers_reads_it():
    assert label_names({}, 2, "c") == ["LABEL_0", "LABEL_1"]
    assert activation_of({}, 1, "c") == "sigmoid" and activation_of({}, 2, "c") == "softmax"
