"""``jaxmodpo sweep``: MODPO and soups over a grid of weights from one loaded base, and their fronts.

References and margins are computed once for all weights, and the step is compiled once. Every model is measured on
replies sampled from it: each objective's score, and the divergence from the base. Since a method may score more only
because it moved further, the fronts are also compared at matched divergence: of two models with the same weights, the
one that moved further is scaled back, its adapter multiplied by a number below 1, until both diverge alike.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np

from jaxmodpo.config import named_values
from jaxmodpo.data.examples import reward_rankings
from jaxmodpo.data.pairs import load_pairs
from jaxmodpo.errors import UserError
from jaxmodpo.evaluation.fronts import by_weights, front_figure, hypervolume, undominated
from jaxmodpo.files import atomic_path, read_json, write_json
from jaxmodpo.hub import local_folder
from jaxmodpo.intervals import percentile_interval, resampled_questions
from jaxmodpo.judging.rubric import RubricJudge
from jaxmodpo.methods.dpo import DPOConfig, dpo
from jaxmodpo.methods.margins import margin_sources
from jaxmodpo.methods.modpo import MODPOConfig, modpo
from jaxmodpo.methods.reward_model import load_reward_model, score
from jaxmodpo.methods.score import divergence, own_replies
from jaxmodpo.methods.soup import SoupConfig, soup
from jaxmodpo.models.adapter_config import read_adapter_config
from jaxmodpo.models.adapters import load_adapter
from jaxmodpo.models.files import read_decoder_config
from jaxmodpo.pages import png
from jaxmodpo.phase import Phase
from jaxmodpo.ranges import Count, Positive
from jaxmodpo.rankings import PairsPerQuestion
from jaxmodpo.records import Candidate, Question, Ranking, read_questions
from jaxmodpo.results import Measured
from jaxmodpo.schema import Range
from jaxmodpo.training.distributed import open_phase
from jaxmodpo.training.loaded_policy import Policy, with_adapter
from jaxmodpo.training.prompts import load_policy_text, on_one_day
from jaxmodpo.training.session import Session
from jaxmodpo.training.settings import PreferenceTrainingConfig

logger = logging.getLogger(__name__)

Scorer = Callable[[Sequence[Question], Sequence[str]], np.ndarray]
CLOSE = 0.05
"""divergences that differ by less than this share count as matched"""
DATASETS_FILES = ("state.json", "dataset_dict.json")
"""what datasets' save_to_disk leaves in a folder"""
DIGITS = 10
"""decimals of a weight; beyond them is rounding"""


@dataclass(frozen=True, kw_only=True)
class SweepConfig(PreferenceTrainingConfig):
    """Train MODPO over a grid of weights, make soups over the same grid, and compare their fronts."""

    pairs: Path
    """preference pairs or rankings of the primary objective"""
    pairs_per_question: PairsPerQuestion = "all"
    """of rankings: all pairs (the ends alone leave MODPO little to reweigh), best-worst as in the paper, or a number
    of pairs, the widest gaps first; a file of pairs is taken as it is"""
    margin: tuple[str, ...]
    """NAME=SOURCE of each further objective, as in 'align modpo'"""
    weights: str = "0.1..0.9"
    """LOW..HIGH, of every objective's weight, the primary's first"""
    step: Annotated[float, Range(above=0, below=1)] = 0.1
    """between two weights of an objective"""
    margin_scale: Literal["none", "std"] = "std"
    """std divides each reward by its standard deviation over the training pairs' responses"""
    margin_gain: Positive = 1.0
    """multiplies every margin after that"""
    soup: tuple[str, ...] = ()
    """NAME=ADAPTER or NAME=PAIRS of every objective, the primary first: adapters to average, or pairs to train them on
    by DPO with the settings of this command; none makes no soups"""
    questions: Path
    """what the models are measured on"""
    score: tuple[str, ...]
    """NAME=SCORER of every objective, the primary first: a reward model's folder, or rubric"""
    samples: Count = 4
    """replies per question, drawn at temperature 1 from the whole vocabulary"""
    max_new_tokens: Count = 512
    """most tokens of a reply"""
    sample_batch_size: Count = 64
    """replies sampled at a time"""
    match_kl: bool = True
    """compare at matched divergence besides"""

    def check(self) -> None:
        super().check()
        names, _ = _objectives(self)
        grid(self.weights, self.step, len(names))
        margin_sources(named_values(self.margin, "--margin"))
        souped = list(named_values(self.soup, "--soup"))
        if souped and souped != names:
            raise UserError(f"--soup must name {', '.join(names)}, in this order; it names {', '.join(souped)}")
        _check_souped(self)


def grid(weights: str, step: float, objectives: int) -> list[tuple[float, ...]]:
    """Return the simplex's points whose coordinates are ``LOW, LOW + step, …, HIGH``, the first falling.

    Raises:
        UserError: no range, or no point of it lies on the simplex.
    """
    try:
        low, high = (float(end) for end in weights.split(".."))
        if not (0 < low <= high < 1 and step > 0):
            raise ValueError
    except ValueError as error:
        raise UserError(
            f"--weights must be LOW..HIGH within 0 and 1, as in 0.1..0.9, and --step above 0; got {weights}, {step}"
        ) from error
    count = math.floor((high - low) / step + 1e-6)  # 0.8 / 0.1 is less than 8
    values = [round(low + n * step, DIGITS) for n in range(count + 1)]
    points = [p for p in itertools.product(values[::-1], repeat=objectives) if math.isclose(sum(p), 1, abs_tol=1e-6)]
    if not points:
        raise UserError(f"no weights of {weights} in steps of {step} sum to 1 over {objectives} objectives")
    return points


def point_name(weights: Sequence[float], between: str = "_") -> str:
    """Return a point's name: its weights, with two decimals or as many as they have, so that no two share one."""
    decimals = [f"{weight:.{DIGITS}f}" for weight in weights]
    return between.join(text[:4] + text[4:].rstrip("0") for text in decimals)


def sweep(config: SweepConfig) -> Phase:
    """Run ``sweep``; models and measurements that are finished are not made again."""
    config.check()
    names, scorers = _objectives(config)
    points = grid(config.weights, config.step, len(names))
    souped = named_values(config.soup, "--soup")
    inputs = {"model": config.model, "pairs": config.pairs, "questions": config.questions}
    inputs |= {f"soup {name}": Path(path) for name, path in souped.items()}
    inputs |= {f"score {name}": Path(path) for name, path in scorers.items() if path != "rubric"}
    sources = margin_sources(named_values(config.margin, "--margin"))
    inputs |= {f"margin {name}": s.folder for name, s in sources.items() if s.folder is not None}
    phase = open_phase("sweep", config, inputs)
    if phase.finished:
        return phase
    if jax.process_count() > 1:
        raise UserError("sweep samples in one process; run it on one host, and 'align modpo' on several")
    _check_souped(config, read=True)
    config = on_one_day(config, phase)
    session = Session()
    measure = _Measure(config, {name: _scorer(path, config) for name, path in scorers.items()}, session)
    fronts: dict[str, list[dict[str, Any]]] = {"modpo": [], "soup": []}
    base = measure("base", None, None)
    ends = _ends(config, souped, session)
    for weights in points:
        name = point_name(weights)
        adapter = config.output_dir / "modpo" / name / "adapter"
        modpo(_as(MODPOConfig, config, weights=weights, output_dir=adapter.parent), session)
        fronts["modpo"].append(measure(f"modpo_{name}", adapter, weights))
        if ends:
            adapter = config.output_dir / "soup" / name / "adapter"
            soup(SoupConfig(adapters=tuple(ends), weights=weights, output_dir=adapter.parent, model=config.model))
            fronts["soup"].append(measure(f"soup_{name}", adapter, weights))
    matched = []
    if ends and config.match_kl:
        matched = [measure.matched(one, other) for one, other in by_weights([fronts["modpo"], fronts["soup"]])]
    fronts = {name: front for name, front in fronts.items() if front}
    results = compare(names, base, fronts, matched)
    write_json(config.output_dir / "sweep.json", results)
    if len(names) == 2:
        with atomic_path(config.output_dir / "fronts.png") as temporary:
            temporary.write_bytes(png(front_figure(fronts, (names[0], names[1]), base)))
    print(table(results))
    phase.finish(points=len(points), **{key: results[key] for key in ("objectives", "hypervolume") if key in results})
    return phase


# --------------------------------------------------------------------------- settings


def _objectives(config: SweepConfig) -> tuple[list[str], dict[str, str]]:
    """Return the objectives' names, the primary first, and their scorers."""
    scorers = named_values(config.score, "--score")
    margins = list(named_values(config.margin, "--margin"))
    names = list(scorers)
    if names[1:] != margins:
        raise UserError(
            f"--score must name the primary objective and then {', '.join(margins)}, as --margin does; it names "
            f"{', '.join(names)}"
        )
    return names, scorers


def _check_souped(config: SweepConfig, *, read: bool = False) -> None:
    """Refuse what is neither an adapter nor pairs, before anything is measured.

    Args:
        config: the settings; what they name may not be there yet.
        read: that it is there, and whole pairs can be read.

    Raises:
        UserError: naming the objective.
    """
    for name, path in named_values(config.soup, "--soup").items():
        folder = Path(path)
        try:
            if _is_adapter(folder):
                read_adapter_config(folder)
                if read:
                    load_adapter(folder, read_decoder_config(config.model), config.model)
            elif folder.is_dir() and not any((folder / file).is_file() for file in DATASETS_FILES):
                raise UserError(
                    f"{path} is neither a PEFT adapter (adapter_config.json) nor what datasets' save_to_disk wrote"
                )
            elif read:
                load_pairs(folder, config.pairs_per_question)
        except UserError as error:
            raise UserError(f"--soup {name}: {error}") from None


def _is_adapter(folder: Path) -> bool:
    return (local_folder(folder) / "adapter_config.json").is_file()


def _as(cls: type[Any], config: SweepConfig, **changes: Any) -> Any:
    """Return the settings of a method, as far as the sweep has them."""
    mine = {f.name: getattr(config, f.name) for f in fields(cls) if hasattr(config, f.name)}
    return cls(**mine | changes)


def _ends(config: SweepConfig, souped: Mapping[str, str], session: Session) -> list[Path]:
    """Return the adapters to average, trained here where pairs were given."""
    adapters = []
    for name, path in souped.items():
        if _is_adapter(Path(path)):
            adapters.append(Path(path))
            continue
        folder = config.output_dir / "dpo" / name
        dpo(_as(DPOConfig, config, pairs=Path(path), output_dir=folder), session)
        adapters.append(folder / "adapter")
    return adapters


# --------------------------------------------------------------------------- measuring


def _scorer(path: str, config: SweepConfig) -> Callable[[str], Scorer]:
    def rubric(name: str) -> Scorer:
        judge = RubricJudge(0, 0.0)
        return lambda _, texts: np.array([judge.score(text, name) for text in texts])

    def encoder(name: str) -> Scorer:
        model, text = load_reward_model(Path(path))

        def rewards(questions: Sequence[Question], texts: Sequence[str]) -> np.ndarray:
            rows = [
                Ranking(q.question_id, q.question_text, (Candidate("", reply),))
                for q, reply in zip(questions, texts, strict=True)
            ]
            parameters = {key: variable[...] for key, variable in model.parameters.items()}
            return score(model.config, parameters, reward_rankings(rows, text), config.sample_batch_size)[:, 0]

        return rewards

    return rubric if path == "rubric" else encoder


class _Measure:
    """Samples from a model and keeps what it measured in ``points/``."""

    def __init__(self, config: SweepConfig, scorers: Mapping[str, Callable[[str], Scorer]], session: Session):
        self._config = config
        self._scorers = {name: make(name) for name, make in scorers.items()}
        self._bare = session.policy(config)
        self._questions = read_questions(config.questions)
        length = config.max_prompt_length + config.max_new_tokens
        self._text = load_policy_text(
            config.model, config.prompt_style, config.max_prompt_length, length, day=config.prompt_date
        )

    def __call__(
        self, label: str, adapter: Path | None, weights: Sequence[float] | None, scale: float = 1.0
    ) -> dict[str, Any]:
        """Return ``adapter``, ``scale``, ``weights``, means and per-question values of every score and of KL."""
        path = self._config.output_dir / "points" / f"{label}.json"
        if path.is_file() and (measured := self._measured(path, label, adapter, weights, scale)):
            return measured
        policy = self._bare if adapter is None else with_adapter(self._bare, adapter)
        policy = replace(policy, lora=replace(policy.lora, alpha=policy.lora.alpha * scale))
        said = {
            "label": label,
            "adapter": adapter and str(adapter),
            "scale": scale,
            "weights": weights and list(weights),
        }
        said |= self._values(policy, adapter is None)
        write_json(path, said)
        numbers = ", ".join(f"{name} {value:.3f}" for name, value in said["scores"].items())
        logger.info("%s: %s; KL %.2f nats", label, numbers, said["kl"])
        return said

    def _measured(
        self, path: Path, label: str, adapter: Path | None, weights: Sequence[float] | None, scale: float
    ) -> dict[str, Any] | None:
        """Return what was measured before, if it is of this model, these questions and scores."""
        said = dict(read_json(path, Measured))
        of = {"label": label, "scale": scale, "weights": weights and list(weights)}
        questions = {question.question_id for question in self._questions}
        scores = said["per_question"]
        asked = all(isinstance(one, dict) and one.keys() == questions for one in scores.values())
        if asked and scores.keys() == self._scorers.keys() and of.items() <= said.items():
            return said | {"adapter": adapter and str(adapter)}  # the folder may have been moved
        logger.warning("%s is of another model, other questions or another version; it is measured again", path)
        return None

    def _values(self, policy: Policy, is_base: bool) -> dict[str, Any]:
        config, repeated = self._config, [q for q in self._questions for _ in range(self._config.samples)]
        prompts = [self._text.prompt(question.question_text) for question in repeated]
        replies = own_replies(
            policy, prompts, self._text.eos, config.max_new_tokens, config.sample_batch_size, config.seed
        )
        texts = [self._text.decode(reply) for reply in replies]
        ids = [question.question_id for question in self._questions]
        shape = (len(ids), config.samples)
        length = max(map(len, prompts)) + config.max_new_tokens
        ratios = (
            np.zeros(shape)
            if is_base
            else divergence(policy, prompts, replies, config.sample_batch_size, length).reshape(shape)
        )
        scores = {name: scorer(repeated, texts).reshape(shape) for name, scorer in self._scorers.items()}
        return {
            "scores": {name: float(values.mean()) for name, values in scores.items()},
            "kl": float(ratios.mean()),
            "kl_standard_error": float(ratios.mean(1).std(ddof=1) / math.sqrt(len(ratios)))
            if len(ratios) > 1
            else None,
            "per_question": {
                name: dict(zip(ids, values.mean(1).round(6).tolist(), strict=True)) for name, values in scores.items()
            },
        }

    def matched(
        self, first: Mapping[str, Any], second: Mapping[str, Any], tries: int = 7
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Scale back the one of two models that moved further, by bisection, until both diverge alike."""
        far, near = (first, second) if first["kl"] > second["kl"] else (second, first)
        found, low, high = far, 0.0, 1.0
        for number in range(tries):
            if abs(found["kl"] - near["kl"]) <= CLOSE * max(near["kl"], 0.02):
                break
            middle = (low + high) / 2
            label = f"{far['label']}_scaled_{number}"
            found = self(label, Path(far["adapter"]), far["weights"], middle)
            low, high = (middle, high) if found["kl"] < near["kl"] else (low, middle)
        return (found, second) if far is first else (first, found)


# --------------------------------------------------------------------------- results


def compare(
    names: Sequence[str],
    base: Mapping[str, Any],
    fronts: Mapping[str, Sequence[Mapping[str, Any]]],
    matched: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]] = (),
) -> dict[str, Any]:
    """Return a sweep's figures; intervals are 95% bootstrap intervals over questions.

    The reference point of the hypervolumes is the lowest score of each objective over all points and the base.
    """

    questions = list(base["per_question"][names[0]])

    def arrays(points: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """``[points, objectives, questions]``."""
        return np.array([[_scores_of(point, name, questions) for name in names] for point in points])

    values = {method: arrays(points) for method, points in fronts.items()}
    everything = np.concatenate([*(v.mean(-1) for v in values.values()), arrays([base]).mean(-1)])
    reference = everything.min(0)
    drawn = resampled_questions(len(questions))
    volumes = {
        method: np.array([hypervolume(v[:, :, rows].mean(-1), reference) for rows in drawn[:500]])
        for method, v in values.items()
    }
    said: dict[str, Any] = {
        "objectives": list(names),
        "base": _without_questions(base),
        "fronts": {method: [_without_questions(point) for point in points] for method, points in fronts.items()},
        "reference_point": dict(zip(names, reference.tolist(), strict=True)),
        "hypervolume": {
            method: {
                "value": hypervolume(v.mean(-1), reference),
                "interval": _interval(volumes[method]),
                "undominated": int(undominated(v.mean(-1)).sum()),
            }
            for method, v in values.items()
        },
    }
    if set(values) == {"modpo", "soup"}:
        difference = volumes["modpo"] - volumes["soup"]
        said["hypervolume"]["modpo - soup"] = {
            "value": said["hypervolume"]["modpo"]["value"] - said["hypervolume"]["soup"]["value"],
            "interval": _interval(difference),
        }
        said["equal_weights"] = [
            _difference(one, other, names, questions, drawn)
            for one, other in by_weights([fronts["modpo"], fronts["soup"]])
        ]
        said["matched_kl"] = [_difference(one, other, names, questions, drawn) for one, other in matched]
    return said


def _interval(samples: np.ndarray) -> list[float]:
    """Return both ends of the 95% interval of bootstrap samples, as JSON takes them."""
    low, high = percentile_interval(samples)
    return [float(low), float(high)]


def _scores_of(point: Mapping[str, Any], name: str, questions: Sequence[str]) -> list[float]:
    """Return a point's scores of these questions, in their order.

    Raises:
        UserError: it has another set of questions.
    """
    values = point["per_question"][name]
    if values.keys() != set(questions):
        raise UserError(f"{point['label']} was measured on other questions than the base; remove its file in points/")
    return [values[question] for question in questions]


def _without_questions(point: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in point.items() if key not in ("per_question", "adapter")}


def _difference(
    modpo_point: Mapping[str, Any],
    soup_point: Mapping[str, Any],
    names: Sequence[str],
    questions: Sequence[str],
    drawn: np.ndarray,
) -> dict[str, Any]:
    """Return MODPO's score minus the soup's, of each objective and weighted, with intervals."""
    weights = modpo_point["weights"]
    assert weights == soup_point["weights"], (weights, soup_point["weights"])
    ours, theirs = (
        np.array([_scores_of(point, name, questions) for name in names]) for point in (modpo_point, soup_point)
    )
    apart = ours - theirs  # [objectives, questions]
    rows = dict(zip(names, apart, strict=True)) | {"weighted": np.asarray(weights) @ apart}
    return {
        "weights": list(weights),
        "kl": {"modpo": modpo_point["kl"], "soup": soup_point["kl"]},
        "scale": {"modpo": modpo_point["scale"], "soup": soup_point["scale"]},
        "modpo - soup": {
            name: {"value": float(values.mean()), "interval": _interval(values[drawn].mean(1))}
            for name, values in rows.items()
        },
    }


def table(results: Mapping[str, Any]) -> str:
    """Lay out the points and the comparisons."""
    names = results["objectives"]
    lines = ["", f"{'':<26}" + "".join(f"{name:>14}" for name in names) + f"{'KL, nats':>10}"]
    rows = [("base", results["base"])]
    for method, points in results["fronts"].items():
        rows += [(f"{method} " + point_name(point["weights"], "/"), point) for point in points]
    for label, point in rows:
        lines.append(f"{label:<26}" + "".join(f"{point['scores'][n]:14.3f}" for n in names) + f"{point['kl']:10.2f}")
    lines.append("")
    for method, said in results["hypervolume"].items():
        low, high = said["interval"]
        lines.append(f"hypervolume, {method:<13}{said['value']:9.4f} [{low:.4f}, {high:.4f}]")
    for kind in ("equal_weights", "matched_kl"):
        for row in results.get(kind, []):
            found = row["modpo - soup"]["weighted"]
            low, high = found["interval"]
            weights, kl = point_name(row["weights"], "/"), row["kl"]
            lines.append(
                f"{kind.replace('_', ' ')} {weights}: weighted score, modpo - soup {found['value']:+.3f} "
                f"[{low:+.3f}, {high:+.3f}], KL {kl['modpo']:.2f} and {kl['soup']:.2f}"
            )
    return "\n".join(lines)
