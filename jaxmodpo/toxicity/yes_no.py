"""A decoder as a scorer: asked whether a reply is harmful, it says yes or no.

Nothing is sampled. The score is the probability of one answer among the two, by the logits of the
next token: p = exp(y) / (exp(y) + exp(n)). LLAMACITIZEN-8B is such a judge, and any Llama or
Mistral that follows instructions can be asked so.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmodpo.data.controls import ControlTokens
from jaxmodpo.data.text import PolicyText, load_tokenizer
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import digest, fingerprint
from jaxmodpo.hub import model_name
from jaxmodpo.judging.judge import Request
from jaxmodpo.models.attention import Attention
from jaxmodpo.models.decoder import Decoder
from jaxmodpo.models.decoder_config import DecoderConfig, read_decoder_config
from jaxmodpo.models.lora import LoraConfig
from jaxmodpo.models.quantized import BaseDtype
from jaxmodpo.policy.loaded import load_policy
from jaxmodpo.toxicity.question import YesNoFile, load_question
from jaxmodpo.toxicity.scorers import LocalScorer, ScoreRows, named_scores

LONGEST = 4096
"""tokens of a prompt, where the settings say nothing"""


def yes_no_scorer(
    folder: Path,
    *,
    batch_size: int,
    question: str | Path = "harm_yes_no",
    base_dtype: BaseDtype = "bfloat16",
    max_length: int | None = None,
) -> LocalScorer:
    """Make a scorer of a decoder's folder; its weights are loaded when the first text comes.

    Args:
        folder: ``config.json``, safetensors and a tokenizer.
        batch_size: prompts at a time.
        question: a file of a yes/no question.
        base_dtype: number format of the weights.
        max_length: tokens of a prompt. One that is longer is not scored: what would be cut may be
            what is harmful.

    Raises:
        UserError: no such model, no chat template where one is to be used, or an answer of several
            tokens.
    """
    question_file = load_question(question)
    reader = _Reader.of(folder, question_file, max_length or LONGEST)
    harmful = reader.answer_token(question_file.harmful, folder)
    harmless = reader.answer_token(question_file.harmless, folder)
    if harmful == harmless:
        raise UserError(
            f"'{question_file.harmful}' and '{question_file.harmless}' are the same token of the"
            f" tokenizer in {folder}; name other answers"
        )
    answers = [harmful, harmless]
    model = model_name(str(folder))
    weights = fingerprint(folder)[:16]
    question_digest = digest(vars(question_file))[:12]
    return LocalScorer(
        identity=(
            f"yes/no judge {model}; weights {weights}; {base_dtype}; question {question_digest};"
            f" {reader.max_length} tokens"
        ),
        model=model,
        criteria=named_scores([question_file.score]),
        tokens=reader.tokens,
        cut=lambda request: False,
        load=lambda: _load(folder, base_dtype, answers),
        batch_size=batch_size,
    )


@dataclass(frozen=True)
class _Reader:
    """Turns a request into the tokens of a prompt."""

    question_file: YesNoFile
    controls: ControlTokens
    text: PolicyText | None
    start: list[int]
    unknown: int | None
    max_length: int

    @classmethod
    def of(cls, folder: Path, question_file: YesNoFile, max_length: int) -> _Reader:
        tokenizer = load_tokenizer(folder)
        rows = read_decoder_config(folder).vocab_size
        text = None
        start: list[int] = []
        if question_file.style == "chat":
            # A day that is fixed: some templates name the day on which they are used, and the same
            # reply must have the same score tomorrow.
            text = PolicyText(
                tokenizer,
                "chat",
                max_prompt_length=max_length,
                max_length=max_length + 1,
                day="2025-01-01",
                rows=rows,
            )
        elif tokenizer.bos_token_id is not None:
            start = [cast(int, tokenizer.bos_token_id)]
        controls = ControlTokens(tokenizer, rows=rows)
        unknown = cast(int | None, tokenizer.unk_token_id)
        return cls(question_file, controls, text, start, unknown, max_length)

    def answer_token(self, answer: str, folder: Path) -> int:
        """Return the one token that an answer is.

        Raises:
            UserError: it is several tokens, or none. The probability of the first one alone would
                count every other word that begins alike.
        """
        tokens, _ = self.controls.encode(answer)
        if len(tokens) == 1 and tokens[0] != self.unknown:
            return tokens[0]
        number = "no token" if tokens == [self.unknown] else f"{len(tokens)} tokens"
        raise UserError(
            f"the answer '{answer}' is {number} of the tokenizer in {folder}, and it must be one;"
            " name another word in the file of --template"
        )

    def tokens(self, request: Request) -> list[int] | None:
        (response,) = request.responses
        template = Template(self.question_file.question)
        question = template.substitute(
            post=request.question_text.strip() or "NA",
            reply=response.response_text.strip(),
        )
        if self.text is None:
            tokens, _ = self.controls.encode(question)
            prompt = [*self.start, *tokens]
            return prompt if len(prompt) <= self.max_length else None
        prompts_cut = self.text.cut.prompts
        prompt = self.text.prompt(question)
        return prompt if self.text.cut.prompts == prompts_cut else None


def _load(folder: Path, base_dtype: BaseDtype, answers: list[int]) -> ScoreRows:
    policy = load_policy(folder, base_dtype=base_dtype, for_sampling=True)
    ids = jnp.asarray(answers)

    def score(tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        return np.asarray(
            _probability(
                policy.base,
                policy.zero_adapter,
                tokens,
                lengths,
                ids,
                config=policy.config,
                lora=policy.lora,
                attention=policy.attention,
            )
        )

    return score


@functools.partial(jax.jit, static_argnames=("config", "attention"))
def _probability(
    base: dict[str, Array],
    adapter: dict[str, Array],
    tokens_BT: Array,
    lengths_B: Array,
    answers_2: Array,
    *,
    config: DecoderConfig,
    lora: LoraConfig,
    attention: Attention,
) -> Array:
    """Return the probability of the first answer among the two after each prompt, ``[B, 1]``."""
    decoder = Decoder(config, base, lora, adapter, attention)
    # Padding stands on the right, where causal attention never sees it.
    hidden_BTD = decoder.hidden_states(tokens_BT, None)
    last_B = lengths_B - 1
    last_B1D = jnp.take_along_axis(hidden_BTD, last_B[:, None, None], axis=1)
    logits_B2 = decoder.logits(last_B1D)[:, 0, answers_2]
    return jax.nn.softmax(logits_B2, axis=-1)[:, :1]
