"""Where batches of a run have to stop: what a call may cost before one has a price, and error codes
after which none can succeed.

Both are known sooner for single calls. A batch is paid for as a whole, hours before its first
answer is read.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from jaxmodpo.endpoints.failures import ACCOUNT_CODES
from jaxmodpo.endpoints.usage import Usage
from jaxmodpo.errors import UserError
from jaxmodpo.judging.batch_api import HOPELESS
from jaxmodpo.judging.batch_context import BatchContext
from jaxmodpo.judging.judge import Request

if TYPE_CHECKING:
    from openai.types import Batch as EndpointsBatch

# English has about four bytes a token, and an answer names a few replies by their numbers.
_BYTES_PER_TOKEN = 4
_ANSWER_TOKENS = 40


def expect_price(context: BatchContext, request: Request, line: bytes) -> None:
    """Tell a judge's budget of dollars what a call may cost, as long as no call has a price.

    Args:
        context: of the judge whose budget it is.
        request: that is asked.
        line: the request as the batch's file has it.
    """
    budget = context.budget
    if budget.most_dollars is None:
        return
    # A whole batch is under way before the first call has a price. Counted as nothing until then,
    # its calls could cost any multiple of the budget.
    budget.expected = 0.0 if budget.priced else _guessed_price(context, request, line)


def _guessed_price(context: BatchContext, request: Request, line: bytes) -> float:
    prompt_tokens = len(line) // _BYTES_PER_TOKEN
    answer_tokens = _ANSWER_TOKENS * len(request.criteria)
    dollars = context.price(Usage(prompt_tokens, 0, answer_tokens))
    return context.discounted(dollars) or 0.0


def error_codes(ended: EndpointsBatch) -> list[str]:
    """Return the codes of what a batch failed for as a whole."""
    errors = ended.errors.data if ended.errors else None
    return [error.code or "" for error in errors or []]


def refuse_hopeless(counts: Counter[str]) -> None:
    """End the run where a batch's error codes say that no request can succeed.

    Args:
        counts: requests by error code; those that were answered have the empty one.

    Raises:
        UserError: naming the code.
    """
    hopeless = HOPELESS & counts.keys()
    # An unpaid account answers nothing more, even where it answered some of this batch. What a
    # model refuses of a few requests alone does not hold for all of them.
    of_account = ACCOUNT_CODES & counts.keys()
    answered = counts[""]
    if of_account or (hopeless and not answered):
        raise UserError(
            f"the judge's model answered {answered:,} of {sum(counts.values()):,} requests of"
            f" a batch: {min(hopeless)}; change the settings or the account"
        )
