"""What a judge's calls will cost before any is made, as a dry run adds it up.

::

    cost = Cost(judge_calls=1200)
    pay_judge(cost, config, "rank", replies=5, criteria=6)
    cost.dollars, cost.unknown
"""

from __future__ import annotations

from typing import Literal

from jaxmodpo.costs import CHARACTERS_PER_TOKEN, REPLY_TOKENS, Cost, PaidJudgeSettings
from jaxmodpo.criteria import load_criteria
from jaxmodpo.endpoints.families import Families
from jaxmodpo.endpoints.prices import QUESTION_TOKENS, pay_calls
from jaxmodpo.judging.forecast import Shape, answer_tokens, framing
from jaxmodpo.judging.prompts import Prompts

PERSONA_TOKENS = 330
"""of a usual profile"""


def pay_judge(
    cost: Cost,
    config: PaidJudgeSettings,
    kind: Literal["rank", "compare", "score"],
    replies: int,
    criteria: int,
    ties: bool = False,
) -> None:
    """Add the price of a judge's calls; nothing where no endpoint judges.

    Args:
        cost: says how many calls there are, and gains the dollars.
        config: the judge's settings.
        kind: what the judge is asked to do.
        replies: that each call shows.
        criteria: that each call asks about.
        ties: whether a call may end in a tie.
    """
    if config.judge not in ("endpoint", "batch"):
        return
    assert cost.judge_calls is not None
    selected_criteria = tuple(load_criteria(config.criteria, config.only)[:criteria])
    prompts = Prompts.load(config.prompts)
    # All that a prompt holds besides the persona, the question and the replies.
    frame = framing(prompts, Shape(kind, selected_criteria, replies, ties))
    frame_tokens = len(frame) / CHARACTERS_PER_TOKEN
    prompt = frame_tokens + PERSONA_TOKENS + QUESTION_TOKENS + replies * REPLY_TOKENS
    answer = answer_tokens(kind, criteria, replies)
    pay_calls(cost, config.model_table, config.judge_model, cost.judge_calls, prompt, answer)
    if config.judge == "batch" and cost.dollars is not None:
        discount = Families.load(config.model_table).batch_discount
        cost.dollars *= 1 - discount
