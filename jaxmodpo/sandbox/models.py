"""The sandbox's models: a tiny Mistral and a tiny RoBERTa, made and pretrained from scratch.

Both are saved as Hugging Face folders with tokenizers of their own. From there on nothing knows
that they are small.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from jaxmodpo.data.batches import Batches
from jaxmodpo.data.examples import Examples, completions
from jaxmodpo.data.text import PROMPT, PolicyText, RewardText, load_tokenizer, pad_rows
from jaxmodpo.losses import sft_loss
from jaxmodpo.methods.sft import SFT
from jaxmodpo.models import decoder, roberta
from jaxmodpo.models.completions import completion_logps
from jaxmodpo.models.decoder_config import DecoderConfig
from jaxmodpo.models.model_folder import save_model
from jaxmodpo.models.parameters import Parameters, initialize
from jaxmodpo.models.roberta_config import RobertaConfig
from jaxmodpo.policy.mesh import make_mesh, row_shards
from jaxmodpo.training.problem import Problem
from jaxmodpo.training.settings import TrainingConfig
from jaxmodpo.training.step import Batch, LossTerms
from jaxmodpo.training.trainer import train

_SPACE = "\u2581"
"""marks a word's start, as in SentencePiece"""


def save_tokenizer(folder: Path, texts: Sequence[str], special: dict[str, str]) -> None:
    """Make a word-level tokenizer whose vocabulary is every word and mark of ``texts``.

    Args:
        folder: where to.
        texts: what it must be able to write.
        special: ``bos_token`` and so on, in the order of their ids.
    """
    # Whole words: a vocabulary of some hundred entries, which a model of this size learns in
    # minutes, and replies that come back from their tokens to the letter, as the grammar's parser
    # needs them.
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Metaspace(replacement=_SPACE, prepend_scheme="always"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    words: set[str] = set()
    for text in texts:
        words.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    # Special tokens first, each once: two of them may be one token, such as end and padding.
    # Sorted, since a set's order differs from run to run.
    tokens = [*dict.fromkeys(special.values()), *sorted(words)]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Metaspace(replacement=_SPACE, prepend_scheme="always")
    # The marks of a turn are tokens of their own, as in Mistral's tokenizer.
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **special, additional_special_tokens=["[INST]", "[/INST]"]
    )
    fast.save_pretrained(folder)


SaveTokenizer = Callable[[Path, Sequence[str], dict[str, str]], None]


def save_subword_tokenizer(
    folder: Path, texts: Sequence[str], special: dict[str, str], size: int = 4096
) -> None:
    """Make a byte-level BPE tokenizer of ``size`` tokens from texts; see :func:`save_tokenizer`."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    # Bytes for letters, so that no text of real people holds what the vocabulary lacks.
    special_tokens = list(dict.fromkeys(special.values()))
    tokenizer.train_from_iterator(
        texts,
        BpeTrainer(
            vocab_size=size,
            special_tokens=special_tokens,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


@jax.tree_util.register_static
@dataclass(frozen=True)
class LanguageModelLoss:
    """Next-token loss of all of a decoder's parameters on the replies."""

    config: DecoderConfig

    def __call__(
        self, trainable: Parameters, frozen: Parameters, batch: Batch, dropout_key: Array | None
    ) -> LossTerms:
        model = decoder.Decoder(self.config, trainable)
        return SFT()(*completion_logps(model, batch, None, chunk=None), batch)


@jax.tree_util.register_static
@dataclass(frozen=True)
class MaskedLanguageModelLoss:
    """RoBERTa's pretraining: 15% of the tokens are hidden (80% mask, 10% random, 10% kept) and
    guessed.

    The draws come from the step's key, so that no epoch masks the same tokens.
    """

    config: RobertaConfig
    mask_id: int
    first_word: int

    def __call__(
        self, trainable: Parameters, frozen: Parameters, batch: Batch, dropout_key: Array | None
    ) -> LossTerms:
        assert dropout_key is not None
        # An example is one sequence here, and its row is its place.
        tokens = batch["tokens"]
        lengths = batch["lengths"]
        numbers = batch["sequence_numbers"]
        # Every microbatch of an update has sequences, and so draws, of its own.
        key = jax.random.fold_in(dropout_key, numbers[0, 0])
        is_hidden = self._hidden_places(tokens, lengths, jax.random.fold_in(key, 0))
        input_tokens = self._with_places_hidden(tokens, is_hidden, key)
        model = roberta.Roberta(self.config, trainable)
        logits = model(input_tokens, lengths, dropout_key, sequences_B1=numbers)
        logps_of_vocabulary = jax.nn.log_softmax(logits)
        logps = jnp.take_along_axis(logps_of_vocabulary, tokens[..., None], axis=-1)[..., 0]
        # Rows that only fill the batch up weigh nothing.
        sequence_rows = batch["places"][:, 0]
        row_weights = jnp.zeros(len(tokens)).at[sequence_rows].max(batch["row_weights"])
        mask = is_hidden * row_weights[:, None]
        count = jnp.sum(mask)
        examples = jnp.sum(batch["row_weights"])
        # A sum and its denominator, not a mean: microbatches hide different numbers of tokens.
        total = sft_loss(logps, mask) * count
        return LossTerms(total, count, {}, examples)

    def _hidden_places(self, tokens: Array, lengths: Array, key: Array) -> Array:
        """Draw the places that the model has to guess: never padding, never special tokens."""
        is_real = jnp.arange(tokens.shape[1]) < lengths[:, None]
        is_word = tokens >= self.first_word
        return is_real & is_word & jax.random.bernoulli(key, 0.15, tokens.shape)

    def _with_places_hidden(self, tokens: Array, is_hidden: Array, key: Array) -> Array:
        """Return the tokens with most of the hidden places masked, some at random, some as they
        are: a model that saw masks alone would not learn to look at the words themselves.
        """
        fate = jax.random.uniform(jax.random.fold_in(key, 1), tokens.shape)
        random_words = jax.random.randint(
            jax.random.fold_in(key, 2), tokens.shape, self.first_word, self.config.vocab_size
        )
        tokens = jnp.where(is_hidden & (fate < 0.9), random_words, tokens)
        return jnp.where(is_hidden & (fate < 0.8), self.mask_id, tokens)


def make_mistral(
    folder: Path,
    texts: Sequence[tuple[str, str]],
    config: TrainingConfig,
    *,
    save: SaveTokenizer = save_tokenizer,
    max_length: int = 1024,
    width: int = 128,
    layers: int = 4,
) -> None:
    """Pretrain a decoder on (post, reply) texts and save it: by default of about 0.9 million
    parameters, besides its vocabulary's.

    Args:
        folder: where to.
        texts: posts and replies; the replies are learned.
        config: of the training.
        save: makes the tokenizer.
        max_length: tokens of post and reply.
        width: of its hidden states.
        layers: how many.
    """
    # The prompt's own words are in every prompt, and so belong to the vocabulary.
    prompt = PROMPT.format(question=texts[0][0])
    words = [*itertools.chain.from_iterable(texts), prompt]
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    work = config.output_dir / "tokenizer"
    save(work, words, special)
    tokenizer = load_tokenizer(work)
    settings = _mistral_settings(tokenizer, width, layers)
    shape = DecoderConfig.from_mapping(settings, "sandbox")
    table = decoder.parameter_table(shape)
    text = PolicyText(tokenizer, max_prompt_length=max_length // 2, max_length=max_length)
    prompts: list[list[int]] = []
    replies: list[list[int]] = []
    for post, reply in texts:
        tokens, prompt_length = text.example(post, reply)
        prompts.append(tokens[:prompt_length])
        replies.append(tokens[prompt_length:])
    initial = initialize(table, jax.random.key(config.seed))
    trained = _train(LanguageModelLoss(shape), initial, completions(prompts, replies), config)
    save_model(folder, settings, table, trained, tokenizer_from=work)


def _mistral_settings(
    tokenizer: PreTrainedTokenizerBase, width: int, layers: int
) -> dict[str, Any]:
    """Return the decoder's config.json: all that Mistral has, grouped heads too, but small."""
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        # Rounded up, so that the embedding divides over the devices of a mesh.
        "vocab_size": _round_up(len(tokenizer), 16),
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": width // 4,
        "hidden_act": "silu",
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default"},
        "sliding_window": None,
        "tie_word_embeddings": False,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "dtype": "float32",
    }


def make_roberta(
    folder: Path,
    texts: Sequence[tuple[str, str]],
    config: TrainingConfig,
    *,
    save: SaveTokenizer = save_tokenizer,
    width: int = 64,
    layers: int = 2,
) -> None:
    """Pretrain an encoder on (post, reply) texts and save it: by default of about 0.2 million
    parameters.

    Args:
        folder: where to.
        texts: posts and replies.
        config: of the training.
        save: makes the tokenizer.
        width: of its hidden states.
        layers: how many.
    """
    special = {
        "bos_token": "<s>",
        "cls_token": "<s>",
        "pad_token": "<pad>",
        "sep_token": "</s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }
    work = config.output_dir / "tokenizer"
    save(work, list(itertools.chain.from_iterable(texts)), special)
    tokenizer = load_tokenizer(work)
    settings = _roberta_settings(tokenizer, width, layers)
    shape = RobertaConfig.from_mapping(settings, "sandbox", head="language_model")
    text = RewardText(tokenizer, shape.max_length)
    rows = [text.example(post, reply) for post, reply in texts]
    # One length for all, so that the step is compiled once.
    length = _round_up(max(map(len, rows)), 16)
    examples = Examples(
        tokens=pad_rows(rows, length)[:, None],
        prompt_lengths=np.zeros((len(rows), 1), np.int32),
        lengths=np.array([[len(row)] for row in rows], np.int32),
        fields={},
    )
    # Special tokens have the first ids, and several of their names are one token.
    first_word = len(set(special.values()))
    mask_id = tokenizer.get_vocab()[special["mask_token"]]
    loss = MaskedLanguageModelLoss(shape, mask_id, first_word)
    table = roberta.parameter_table(shape)
    initial = initialize(table, jax.random.key(config.seed))
    trained = _train(loss, initial, examples, config)
    save_model(folder, settings, table, trained, tokenizer_from=work)


def _roberta_settings(
    tokenizer: PreTrainedTokenizerBase, width: int, layers: int
) -> dict[str, Any]:
    """Return the encoder's config.json."""
    return {
        "architectures": ["RobertaForMaskedLM"],
        "model_type": "roberta",
        "vocab_size": _round_up(len(tokenizer), 16),
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "hidden_act": "gelu",
        # 256 tokens: RoBERTa counts positions from the one after its padding token's id, which
        # takes two rows more.
        "max_position_embeddings": 258,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.0,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "dtype": "float32",
    }


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _train(
    loss: Any, parameters: Parameters, examples: Examples, config: TrainingConfig
) -> Parameters:
    mesh = make_mesh()
    batches = Batches(
        examples,
        batch_size=config.batch_size,
        accumulation=config.gradient_accumulation,
        epochs=config.epochs,
        seed=config.seed,
        row_shards=row_shards(mesh),
    )
    trained = train(Problem(loss, parameters, {}, mesh), batches, config)
    return trained.parameters
