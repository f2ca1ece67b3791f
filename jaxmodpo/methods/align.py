"""What the ``align`` commands share: a run, from its settings to a finished adapter.

A method's command reads its pairs, says what its loss is, and trains::

    run = PolicyRun.begin(config, phase, session)
    data = run.read_pairs(config.pairs, config.pairs_per_question)
    run.train(DPO(beta=0.1), data)

where the method (here ``DPO``) reduces its losses with :mod:`jaxmodpo.methods.terms`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from jaxmodpo.data.batches import Batches, describe
from jaxmodpo.data.comparisons import Comparisons, leave_out_equal_pairs
from jaxmodpo.data.examples import Examples, check_tokens
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.data.prompting import record_prompt
from jaxmodpo.data.replies import listed_pairs, policy_replies, refuse_conversations
from jaxmodpo.data.row_lengths import MOST_LENGTHS
from jaxmodpo.data.text import PROMPT, PolicyText, tokenizer_digest
from jaxmodpo.errors import UserError
from jaxmodpo.fingerprints import digest, fingerprint
from jaxmodpo.models import flops
from jaxmodpo.models.adapters import save_adapter
from jaxmodpo.models.parameters import Parameters
from jaxmodpo.phase import Phase
from jaxmodpo.policy.distributed import leads, on_host
from jaxmodpo.policy.loaded import Policy
from jaxmodpo.policy.mesh import row_shards
from jaxmodpo.policy.prompts import policy_text
from jaxmodpo.rankings import LeftOut, PairsPerQuestion
from jaxmodpo.records import Pair
from jaxmodpo.training.cache import cached, cached_examples, examples_digest
from jaxmodpo.training.policy_loss import Method
from jaxmodpo.training.problem import policy_problem
from jaxmodpo.training.session import Session
from jaxmodpo.training.settings import PolicyTrainingConfig, PreferenceTrainingConfig
from jaxmodpo.training.startup import Startup
from jaxmodpo.training.trainer import train

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """What a method is trained on: a comparison for each pair, or for one pair of each objective.

    Attributes:
        pairs: the pair of each comparison; of several objectives, the first one's.
        comparisons: the pairs as tokens, with the arrays that a method adds to them.
        left_out: comparisons of the rankings that prefer nothing, of which no pair was made.
        has_cut_reply: which of the comparisons hold a reply that its sampler cut, ``[pairs]`` bool.
    """

    pairs: Sequence[Pair]
    comparisons: Comparisons
    left_out: LeftOut
    has_cut_reply: np.ndarray

    @property
    def questions(self) -> list[str]:
        """Each comparison's question id; a held-out question shares none with the others."""
        return [pair.question_id for pair in self.pairs]

    def with_fields(self, **fields: np.ndarray) -> TrainingData:
        """Return the same data with further arrays ``[pairs, …]`` for the method's batches."""
        return dataclasses.replace(self, comparisons=self.comparisons.with_fields(**fields))


@dataclass(frozen=True)
class PolicyRun:
    """A run of an ``align`` command.

    Attributes:
        config: its settings.
        phase: its folder.
        text: the tokenization that the settings name; it counts what it cuts.
        session: loads the base model, and may share it with other runs.
        startup: counts the time to the first update.
    """

    config: PolicyTrainingConfig
    phase: Phase
    text: PolicyText
    session: Session
    startup: Startup = field(default_factory=Startup)

    @classmethod
    def begin(
        cls, config: PolicyTrainingConfig, phase: Phase, session: Session | None = None
    ) -> PolicyRun:
        """Begin a run; a command that is run alone has a session of its own."""
        startup = Startup()
        return cls(config, phase, policy_text(config, phase), session or Session(), startup)

    @functools.cached_property
    def policy(self) -> Policy:
        """The base model with a fresh adapter.

        It is loaded when it is first asked for: a mistake in the pairs is found before minutes go
        by with reading a base model.
        """
        with self.startup.part("model"):
            return self.session.policy(self.config)

    def read_pairs(
        self,
        file: Path,
        pairs_per_question: PairsPerQuestion = "best-worst",
        *,
        chosen_only: bool = False,
    ) -> TrainingData:
        """Read pairs or rankings and tokenize them.

        Args:
            file: of pairs or rankings.
            pairs_per_question: how many pairs are made of a ranking.
            chosen_only: tokenize the chosen replies and not the rejected ones.
        """
        left_out = LeftOut()
        with self.startup.part("data"):
            pairs = load_pairs(file, pairs_per_question, left_out)
        return self.tokenize([pairs], left_out, chosen_only=chosen_only)

    def tokenize(
        self, pair_sets: Sequence[Sequence[Pair]], left_out: LeftOut, *, chosen_only: bool = False
    ) -> TrainingData:
        """Tokenize each objective's pairs; the pairs that share a place make one comparison."""
        with self.startup.part("data"):
            comparisons = policy_comparisons(
                pair_sets, self.text, self.config, chosen_only=chosen_only
            )
        return TrainingData(
            pair_sets[0], comparisons, left_out, _has_cut_reply(pair_sets, chosen_only)
        )

    def train(self, method: Method, data: TrainingData, **figures: object) -> None:
        """Train the adapter and finish the phase: ``adapter/``, ``metrics.jsonl`` and the
        manifest's figures.

        Args:
            method: what is done with log-probabilities.
            data: with all that the method's batches need besides the reference's
                log-probabilities, which are added here.
            figures: what the method has to say besides, for the manifest.

        Raises:
            UserError: see :func:`jaxmodpo.training.trainer.train`; or nothing is left to train on.
        """
        config = self.config
        policy = self.policy
        self.text.cut.warn()
        check_tokens(int(data.comparisons.replies.tokens.max()), policy.config.vocab_size)
        self._say_prompt()
        figures["pairs_with_cut_replies"] = int(data.has_cut_reply.sum())
        comparisons, question_ids = self._without_cut_replies(data)
        has_reference = isinstance(config, PreferenceTrainingConfig)
        if has_reference:
            comparisons, equal = leave_out_equal_pairs(comparisons)
            question_ids = list(itertools.compress(question_ids, ~equal))
            figures["equal_once_cut_left_out"] = int(equal.sum())
        with self.startup.part("data"):
            questions = comparisons.by_question()
        examples = questions.examples
        if has_reference:
            with self.startup.part("reference"):
                examples = with_reference(policy, examples, config)
        with self.startup.part("batches"):
            batches, held_out_batches = self._batches(
                examples, [question_ids[number] for number in questions.first]
            )
        reference_in_step = has_reference and config.reference == "in_step"
        problem = policy_problem(
            policy, method, remat=config.remat, reference_in_step=reference_in_step
        )
        trained = train(
            problem,
            batches,
            config,
            held_out_batches,
            self.session.on_evaluation,
            self.startup,
            cache_dir=config.cache_dir,
        )
        self._save(trained.parameters)
        self.phase.finish(
            work=config.work_folders(),
            examples=len(batches.examples),
            comparisons=_comparison_count(batches),
            held_out_examples=len(held_out_batches.examples) if held_out_batches else 0,
            held_out_comparisons=_comparison_count(held_out_batches) if held_out_batches else 0,
            sequence_length=int(examples.tokens.shape[-1]),
            **describe(batches),
            **trained.report,
            **self.text.cut.as_dict(),
            **data.left_out.as_dict(),
            **figures,
        )

    def _without_cut_replies(self, data: TrainingData) -> tuple[Comparisons, list[str]]:
        """Return the pairs to train on and their questions' ids, as ``--cut-replies`` has it.

        Raises:
            UserError: every pair holds a cut reply, and those are to be left out.
        """
        if self.config.cut_replies != "leave-out" or not data.has_cut_reply.any():
            return data.comparisons, data.questions
        whole = ~data.has_cut_reply
        if not whole.any():
            raise UserError(
                "--cut-replies leave-out leaves nothing to train on: every pair holds a reply"
                " that its sampler cut; sample longer ones with --max-new-tokens, or keep them"
            )
        question_ids = list(itertools.compress(data.questions, whole))
        return data.comparisons.subset(whole), question_ids

    def _say_prompt(self) -> None:
        """Say how questions are put where it is the paper's way, which few expect."""
        if self.config.prompt_style == "instruct":
            logger.info(
                "every question is put to the model as the paper does: %r; --prompt-style chat"
                " takes the tokenizer's own template and no therapist",
                PROMPT,
            )

    def _batches(
        self, examples: Examples, questions: Sequence[str]
    ) -> tuple[Batches, Batches | None]:
        """Return the batches to train on, and those of the held-out questions if there are any.

        Raises:
            UserError: ``--validation-fraction`` leaves none to train on.
        """
        config = self.config
        held_out = config.held_out(questions)
        if held_out.all():
            raise UserError(
                f"{len(held_out)} examples leave none to train on; lower --validation-fraction"
            )
        batches_of = functools.partial(
            Batches,
            batch_size=config.batch_size,
            batching=config.batching,
            row_shards=row_shards(self.policy.mesh),
            cost=functools.partial(flops.token_cost, self.policy.config),
        )
        batches = batches_of(
            examples.subset(~held_out),
            accumulation=config.gradient_accumulation,
            epochs=config.epochs,
            seed=config.seed,
            most_lengths=MOST_LENGTHS,
        )
        if not held_out.any():
            return batches, None
        # In their own order, once: an evaluation neither shuffles nor accumulates.
        return batches, batches_of(examples.subset(held_out))

    def _save(self, parameters: Parameters) -> None:
        """Write the adapter's PEFT folder, and into it how questions were put."""
        folder = self.config.output_dir / "adapter"
        # All processes gather the shards together, also those that then write nothing: a gathering
        # in which one is missing never ends.
        adapter = on_host(parameters)
        if leads():
            policy = self.policy
            save_adapter(folder, adapter, policy.lora, policy.config, str(self.config.model))
            record_prompt(folder, self.text)


def policy_comparisons(
    pair_sets: Sequence[Sequence[Pair]],
    text: PolicyText,
    config: PolicyTrainingConfig,
    *,
    chosen_only: bool = False,
) -> Comparisons:
    """Tokenize aligned pair sets, or their chosen responses alone; every reply once, and then from
    the cache.
    """
    refuse_conversations(pair_sets, text)
    listed = listed_pairs(pair_sets, chosen_only=chosen_only)
    # The texts, and all that decides how they become tokens. What is forgotten here would let a
    # run read the tokens of another one's settings.
    depends_on = {
        "replies": digest(listed.texts),
        "tokenizer": tokenizer_digest(text.tokenizer),
        "text": [
            dataclasses.asdict(text.surroundings),
            text.max_prompt_length,
            text.max_length,
            list(text.end_tokens),
        ],
        "prompt_style": text.prompt_style,
        "control_tokens": text.control_tokens,
    }

    def tokenize() -> Examples:
        return policy_replies(listed.texts, text)

    replies = cached_examples("tokens", depends_on, text.cut, tokenize, config.cache_dir)
    return listed.compared(replies)


def _comparison_count(batches: Batches) -> int:
    """Return how many comparisons a data set's questions make."""
    return int(batches.examples.fields["comparison_weights"].sum())


def _has_cut_reply(pair_sets: Sequence[Sequence[Pair]], chosen_only: bool) -> np.ndarray:
    """Return which comparisons hold a cut reply, ``[pairs]`` bool."""
    flags = np.zeros(len(pair_sets[0]), bool)
    for pairs in pair_sets:
        for number, pair in enumerate(pairs):
            # SFT does not see the rejected reply, so that it may be cut.
            rejected_counts = pair.rejected.is_cut and not chosen_only
            flags[number] |= pair.chosen.is_cut or rejected_counts
    return flags


def with_reference(policy: Policy, examples: Examples, config: PolicyTrainingConfig) -> Examples:
    """Add ``reference_logps`` ``[n, S]``, one number for each reply; with ``--reference in_step``
    add nothing.

    They are computed once per model and set of replies, and then kept on disk: which pairs are made
    of the replies, and by which criterion, makes no difference.
    """
    if config.reference == "in_step":
        return examples
    # The reference is frozen, so its log-probabilities are a function of the base and the tokens.
    # The rest of the key is what moves their last bits: how many rows are computed at a time, on
    # how many devices, through an adapter of which shape. The policy's first log-probabilities
    # then equal them bit for bit, and the first DPO loss is ln 2.
    depends_on = {
        "model": fingerprint(config.model),
        "base_dtype": config.base_dtype,
        "examples": examples_digest(examples),
        "rows": config.batch_size,
        "batching": config.batching,
        "mesh": [int(size) for size in policy.mesh.shape.values()],
        "adapter_shape": [policy.lora.rank, list(policy.lora.targets)],
        "attention": config.attention,
    }

    def score() -> np.ndarray:
        return policy.logps(examples, config.batch_size, reference=True, batching=config.batching)

    logps = cached("reference-logps", depends_on, score, config.cache_dir)
    return examples.with_fields(reference_logps=logps)
