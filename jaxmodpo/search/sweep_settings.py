"""The settings of ``jaxmodpo sweep``, what they are checked for, and the grid of weights that they
ask for.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from jaxmodpo.config import named_values
from jaxmodpo.costs import Cost, Estimates
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.errors import UserError
from jaxmodpo.flags.help_groups import HelpGroup
from jaxmodpo.hub import local_folder
from jaxmodpo.methods.margins import margin_sources
from jaxmodpo.models.adapter_config import read_adapter_config
from jaxmodpo.models.adapters import load_adapter
from jaxmodpo.models.decoder_config import read_decoder_config
from jaxmodpo.ranges import CommandSettings, Count, Positive
from jaxmodpo.rankings import PairsPerQuestion
from jaxmodpo.schema import Range
from jaxmodpo.training.settings import PreferenceTrainingConfig

DATASETS_FILES = ("state.json", "dataset_dict.json")
"""what datasets' save_to_disk leaves in a folder"""
ADAPTER_CONFIG = "adapter_config.json"
"""what a folder with a PEFT adapter holds"""
BISECTIONS = 7
"""models that are measured at most to bring two to the same divergence"""
DIGITS = 10
"""decimals of a weight; beyond them is rounding"""


@dataclass(frozen=True, kw_only=True)
class SweepConfig(PreferenceTrainingConfig, CommandSettings, help_group="search"):
    """Train MODPO over a grid of weights, make soups over the same grid, and compare their
    fronts.
    """

    pairs: Path
    """File or folder of the preference pairs or rankings of the primary objective."""
    pairs_per_question: Annotated[PairsPerQuestion, HelpGroup("data")] = "all"
    """Pairs made from each question's ranking: all; best-worst, as in the paper; or a number of
    pairs, the widest gaps first. Best-worst leaves MODPO little to reweigh. A file of pairs is
    taken as it is."""
    margin: tuple[str, ...]
    """NAME=SOURCE for each further objective: where its reward margins come from. Sources are the
    same as in 'align modpo'."""
    weights: str = "0.1..0.9"
    """Range LOW..HIGH, within 0 and 1, of every objective's weight; the weights of a model sum to
    1."""
    step: Annotated[float, Range(above=0, below=1)] = 0.1
    """Distance between neighboring weights of an objective; a smaller step trains more models."""
    margin_scale: Annotated[Literal["none", "std"], HelpGroup("objective")] = "std"
    """How rewards are scaled before they become margins: std divides each by its standard deviation
    over the responses of the training pairs; none leaves them as they are."""
    margin_gain: Annotated[Positive, HelpGroup("objective")] = 1.0
    """Factor that every margin is multiplied by after that scaling."""
    soup: tuple[str, ...] = ()
    """NAME=ADAPTER or NAME=PAIRS for every objective, the primary first: the adapters to average,
    or the pairs to train them on by DPO with the settings of this command. Without this setting no
    soups are made."""
    questions: Path
    """File of the questions that every model replies to when it is measured."""
    score: tuple[str, ...]
    """NAME=SCORER for every objective, the primary first. A scorer is the folder of a reward model,
    or rubric for the built-in rules."""
    samples: Annotated[Count, HelpGroup("sampling")] = 4
    """Replies sampled for each question, at temperature 1 from the whole vocabulary."""
    max_new_tokens: Annotated[Count, HelpGroup("sampling")] = 512
    """Maximum number of tokens in a sampled reply."""
    sample_batch_size: Annotated[Count, HelpGroup("sampling")] = 64
    """Replies sampled at the same time; lower it when sampling runs out of memory."""
    models_at_once: Annotated[Count, HelpGroup("sampling")] = 4
    """Models sampled side by side over one base; lower it when sampling runs out of memory."""
    match_kl: bool = True
    """Also compare MODPO and soups after scaling the one that moved further from the base back to
    the divergence of the other."""

    def check(self) -> None:
        """Refuse objectives that --score, --margin and --soup name differently, and weights of
        which no combination sums to 1.
        """
        super().check()
        names, _ = objectives_and_scorers(self)
        grid(self.weights, self.step, len(names))
        margin_sources(named_values(self.margin, "--margin"))
        souped = list(named_values(self.soup, "--soup"))
        if souped and souped != names:
            raise UserError(
                f"--soup must name {', '.join(names)}, in this order; it names {', '.join(souped)}"
            )
        check_soups(self)

    def input_paths(self) -> dict[str, Path]:
        paths = super().input_paths()
        for name, path in named_values(self.soup, "--soup").items():
            paths[f"soup {name}"] = Path(path)
        for name, path in named_values(self.score, "--score").items():
            if path != "rubric":
                paths[f"score {name}"] = Path(path)
        for name, source in margin_sources(named_values(self.margin, "--margin")).items():
            if source.folder is not None:
                paths[f"margin {name}"] = source.folder
        return paths

    def cost(self, estimator: Estimates) -> Cost:
        """Return the cost of its training, and of measuring every model at each divergence that is
        tried.

        Adapters that are given are not trained. Of the bisections to matched divergence the most
        are counted.
        """
        objectives = len(named_values(self.margin, "--margin")) + 1
        points = len(grid(self.weights, self.step, objectives))
        replies = estimator.replies([self.pairs], self.pairs_per_question)
        cost = estimator.training(self, replies, runs=points)
        assert cost.chip_hours is not None and cost.disk is not None
        adapter_size = cost.disk / points
        # A soup holds the adapters that it averages side by side, so their sizes add up.
        soup_size = 0.0
        for source in named_values(self.soup, "--soup").values():
            path = Path(source)
            is_trained_already = path in estimator.adapters or (path / ADAPTER_CONFIG).is_file()
            if is_trained_already:
                soup_size += estimator.adapters.get(path, adapter_size)
                continue
            soup_replies = estimator.replies([path], self.pairs_per_question)
            training = estimator.training(self, soup_replies)
            cost.chip_hours += training.chip_hours or 0.0
            cost.disk += adapter_size
            soup_size += adapter_size
        # The base and a model at each point are measured in any case. Of soups there is one at each
        # point, and each pair of models may be measured again until their divergences match.
        models = 1 + points
        if self.soup:
            measured_per_point = 1 + (BISECTIONS if self.match_kl else 0)
            cost.disk += points * soup_size
            models += points * measured_per_point
        replies = models * estimator.rows(self.questions) * self.samples
        # The sampler rounds adapters to what it multiplies them in.
        bytes_of_file = 1.0 if self.base_dtype == "float32" else 0.5
        beside_each_other = min(self.models_at_once, points) * adapter_size * bytes_of_file
        cost.chip_hours += estimator.sampling(
            self, replies, self.sample_batch_size, beside_each_other
        )
        # Each reply is scored twice for the divergence, by the model and by its base.
        cost.chip_hours += estimator.scoring(self.model, replies, models=2)
        return cost


def objectives_and_scorers(config: SweepConfig) -> tuple[list[str], dict[str, str]]:
    """Return the objectives' names, the primary first, and their scorers."""
    scorers = named_values(config.score, "--score")
    margins = list(named_values(config.margin, "--margin"))
    names = list(scorers)
    if names[1:] != margins:
        raise UserError(
            f"--score must name the primary objective and then {', '.join(margins)}, as --margin"
            f" does; it names {', '.join(names)}"
        )
    return names, scorers


def grid(weights: str, step: float, objectives: int) -> list[tuple[float, ...]]:
    """Return the simplex's points whose coordinates are ``LOW, LOW + step, …, HIGH``, the first
    falling.

    Raises:
        UserError: no range, or no point of it lies on the simplex.
    """
    try:
        low_text, high_text = weights.split("..")
        low = float(low_text)
        high = float(high_text)
        if not (0 < low <= high < 1 and step > 0):
            raise ValueError
    except ValueError as error:
        raise UserError(
            "--weights must be LOW..HIGH within 0 and 1, as in 0.1..0.9, and --step above 0; got"
            f" {weights}, {step}"
        ) from error
    # In floating point 0.8 / 0.1 is less than 8, which would lose the last weight.
    count = math.floor((high - low) / step + 1e-6)
    rising = [round(low + number * step, DIGITS) for number in range(count + 1)]
    falling = rising[::-1]
    # All combinations are few enough to go through, and the order of the product is the table's.
    combinations = itertools.product(falling, repeat=objectives)
    points = [point for point in combinations if math.isclose(sum(point), 1, abs_tol=1e-6)]
    if not points:
        raise UserError(
            f"no weights of {weights} in steps of {step} sum to 1 over {objectives} objectives"
        )
    return points


def point_name(weights: Sequence[float], between: str = "_") -> str:
    """Return a point's name: its weights, with two decimals or as many as they have, so that no two
    share one.
    """
    names: list[str] = []
    for weight in weights:
        text = f"{weight:.{DIGITS}f}"
        # "0.3000000000" is 0.30, and "0.3330000000" is 0.333.
        names.append(text[:4] + text[4:].rstrip("0"))
    return between.join(names)


def check_soups(config: SweepConfig, *, all_inputs_exist: bool = False) -> None:
    """Refuse what is neither an adapter nor pairs, before anything is measured.

    Args:
        config: the settings.
        all_inputs_exist: whether what the settings name must be there, so that adapters and pairs
            are read in whole. Before an experiment an earlier phase may have yet to write them.

    Raises:
        UserError: naming the objective.
    """
    for name, path in named_values(config.soup, "--soup").items():
        try:
            _check_soup(Path(path), config, all_inputs_exist)
        except UserError as error:
            raise UserError(f"--soup {name}: {error}") from None


def _check_soup(path: Path, config: SweepConfig, must_exist: bool) -> None:
    if is_adapter(path):
        read_adapter_config(path)
        if must_exist:
            load_adapter(path, read_decoder_config(config.model), config.model)
        return
    is_saved_data_set = any((path / file).is_file() for file in DATASETS_FILES)
    if path.is_dir() and not is_saved_data_set:
        raise UserError(
            f"{path} is neither a PEFT adapter (adapter_config.json) nor what datasets'"
            " save_to_disk wrote"
        )
    if must_exist:
        load_pairs(path, config.pairs_per_question)


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder, here or on the hub, holds a PEFT adapter."""
    return (local_folder(folder) / ADAPTER_CONFIG).is_file()
