"""The ``questions`` command: help-seeking posts, cleaned and split as in the paper.

EPITOME's files hold a row per reply; its seeker posts are kept once each, filtered, and split into
training and test questions of equal lengths.
"""

from __future__ import annotations

import collections
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.errors import UserError
from jaxmodpo.files import read_table
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.ranges import CommandSettings, Count, CountOrZero, Incidental, Seed
from jaxmodpo.records import Question, write_questions
from jaxmodpo.schema import Range

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class QuestionsConfig(CommandSettings, help_group="data"):
    """Clean help-seeking posts and split them into training and test questions."""

    input: tuple[Path, ...]
    """Files of posts: EPITOME's, or any CSV with the columns sp_id and seeker_post."""
    output_dir: Incidental[Path]
    """Folder that questions_train.csv and questions_test.csv are written to."""
    test_size: Annotated[int, Range(least=4)] = 600
    """Number of questions that are kept for testing."""
    seed: Seed = 42
    """Seed of the split into training and test."""
    min_characters: CountOrZero = 10
    """Fewest characters of a post. Shorter posts are left out."""
    max_characters: Count = 2000
    """Most characters of a post. Longer posts are left out."""
    min_words: CountOrZero = 3
    """Fewest words of a post. Posts of fewer words are left out."""

    def check(self) -> None:
        super().check()
        if self.min_characters > self.max_characters:
            raise UserError(
                f"--min-characters is {self.min_characters} and --max-characters"
                f" {self.max_characters}: no post is left"
            )

    def cost(self, estimator: Estimates) -> Cost:
        absent = [path for path in self.input if not path.is_file()]
        if absent:
            number = estimator.posts_to_come(self.input, absent)
        else:
            posts, _ = read_posts(self.input)
            number = len(filter_posts(posts, self)[0])
        check_test_size(self.test_size, number)
        estimator.counts[self.output_dir / "questions_train.csv"] = number - self.test_size
        estimator.counts[self.output_dir / "questions_test.csv"] = self.test_size
        return Cost(disk=300.0 * number)


@in_phase("questions")
def questions(config: QuestionsConfig, phase: Phase) -> None:
    """Run ``questions``.

    Raises:
        UserError: unreadable input, an id with two texts, or too few posts for the split.
    """
    posts, rows = read_posts(config.input)
    acceptable, dropped = filter_posts(posts, config)
    train, test = split_by_length(acceptable, config.test_size, config.seed)
    write_questions(config.output_dir / "questions_train.csv", train)
    write_questions(config.output_dir / "questions_test.csv", test)
    mean_train = _mean_length(train)
    mean_test = _mean_length(test)
    logger.info(
        "%d rows, %d different posts; left out: %s", rows, len(posts), dict(dropped) or "none"
    )
    logger.info(
        "%d training questions (mean length %.1f), %d test questions (mean length %.1f)",
        len(train),
        mean_train,
        len(test),
        mean_test,
    )
    phase.finish(
        rows=rows,
        posts=len(posts),
        duplicates=rows - len(posts),
        left_out=dict(dropped),
        train=len(train),
        test=len(test),
        mean_length_train=round(mean_train, 2),
        mean_length_test=round(mean_test, 2),
    )


def read_posts(paths: Sequence[Path]) -> tuple[list[Question], int]:
    """Read every post once, in the order of first appearance, and count the rows read.

    Raises:
        UserError: an unreadable file, or one ``sp_id`` with two texts.
    """
    posts: dict[str, Question] = {}
    rows = 0
    for path in paths:
        for number, row in enumerate(read_table(path, ["sp_id", "seeker_post"]), 1):
            rows += 1
            name = row["sp_id"].strip()
            text = row["seeker_post"].strip()
            if not name:
                raise UserError(f"{path}, row {number}: the sp_id is empty")
            # The authors' file has a row for each reply to a post, and the post in each of them.
            earlier = posts.setdefault(name, Question(name, text))
            if earlier.question_text != text:
                raise UserError(
                    f"{path}, row {number}: the sp_id {name} stands for another seeker_post in an"
                    " earlier row"
                )
    return list(posts.values()), rows


def filter_posts(
    posts: Sequence[Question], config: QuestionsConfig
) -> tuple[list[Question], collections.Counter[str]]:
    """Keep posts of acceptable length; count the others by the first reason that applies."""
    # One reason each, so that the counts add up to the posts that were left out.
    acceptable: list[Question] = []
    reasons = collections.Counter[str]()
    for post in posts:
        length = len(post.question_text)
        if length < config.min_characters:
            reasons["too short"] += 1
        elif length > config.max_characters:
            reasons["too long"] += 1
        elif len(post.question_text.split()) < config.min_words:
            reasons["too few words"] += 1
        else:
            acceptable.append(post)
    return acceptable, reasons


def split_by_length(
    posts: Sequence[Question], test_size: int, seed: int
) -> tuple[list[Question], list[Question]]:
    """Split at random within quartiles of text length (scikit-learn's stratified split).

    Raises:
        UserError: too few posts for a test set of that size with every quartile in it.
    """
    import pandas
    from sklearn.model_selection import train_test_split

    check_test_size(test_size, len(posts))
    lengths = pandas.Series([len(post.question_text) for post in posts])
    if lengths.nunique() == 1:
        raise UserError(
            f"the {len(posts)} posts are all equally long: there are no length quartiles to"
            " split by"
        )
    # As the paper did it: long posts and short ones differ in more than length, and a test set that
    # happens to have more of either would not measure what was trained.
    quartiles = pandas.qcut(lengths, 4, labels=False, duplicates="drop")
    try:
        train, test = train_test_split(
            np.arange(len(posts)), test_size=test_size, random_state=seed, stratify=quartiles
        )
    except ValueError as error:
        raise UserError(f"the posts cannot be split by length quartile: {error}") from error
    return [posts[n] for n in train], [posts[n] for n in test]


def check_test_size(test_size: int, posts: int) -> None:
    """Refuse a test set that leaves too few posts for either part.

    Raises:
        UserError: always with both numbers.
    """
    if not 4 <= test_size <= posts - 4:
        raise UserError(
            f"--test-size {test_size} does not fit {posts} posts: test and training set need at"
            " least 4 each"
        )


def _mean_length(questions: Sequence[Question]) -> float:
    return sum(len(question.question_text) for question in questions) / len(questions)
