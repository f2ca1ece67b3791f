"""``jaxmodpo tune``: a search for settings, with Optuna, over runs that share one loaded base.

A trial is an ordinary run in ``trials/``, in a folder named by its settings, so that a trial that was cut off goes on
from its checkpoint. What trials are compared by does not depend on the settings that vary: held-out
preference accuracy, weighted where there are several objectives, with the margin as a tie-break. A loss would not do,
since losses of different β are different quantities. SFT compares nothing; there it is the held-out log-likelihood
of a token, which has no constants.

Several processes may share a study by its URL. Of several hosts that train together, the first one asks and tells,
and all run every trial.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import shutil
import socket
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.trial import FrozenTrial, TrialState

from jaxmodpo.artifacts import Phase, digest, read_json, write_json, write_text
from jaxmodpo.config import as_mapping, named_values
from jaxmodpo.errors import Preempted, UserError
from jaxmodpo.methods.dpo import DPOConfig, dpo
from jaxmodpo.methods.joint import JointConfig, joint
from jaxmodpo.methods.margins import margin_sources
from jaxmodpo.methods.modpo import MODPOConfig, modpo
from jaxmodpo.methods.reward import RewardConfig, reward
from jaxmodpo.methods.sft import SFTConfig, sft
from jaxmodpo.search.report import write_report
from jaxmodpo.search.space import Space, load_space
from jaxmodpo.training.distributed import agreed, leads, open_phase
from jaxmodpo.training.session import Session
from jaxmodpo.training.trainer import TrainingConfig

logger = logging.getLogger(__name__)

TIE_BREAK = 1e-4
"""what a margin can add to an accuracy at most"""

HEARTBEAT_SECONDS = 60
GIVE_UP_AFTER = 5
"""failed trials in a row, with none before them that did not fail"""


@dataclass(frozen=True, kw_only=True)
class TuneSettings:
    """What every search can be told besides."""

    trials: int = 20
    """in all, over all processes and earlier runs of this study; pruned and failed ones count"""
    space: str = "paper"
    """a YAML file with the settings to vary, or the name of one of ours (paper)"""
    study: str | None = None
    """the study's storage, as a URL that SQLAlchemy takes; by default study.db in output_dir"""
    prune: bool = True
    """stop trials whose evaluations lie below the median of the earlier ones' at the same point"""
    keep_trials: bool = False
    """keep every trial's adapter or model, not the best one's alone"""


@dataclass(frozen=True, kw_only=True)
class TuneSFTConfig(SFTConfig, TuneSettings):
    """Search settings for 'align sft'."""

    evaluations_per_epoch: int = 2


@dataclass(frozen=True, kw_only=True)
class TuneDPOConfig(DPOConfig, TuneSettings):
    """Search settings for 'align dpo'."""

    evaluations_per_epoch: int = 2


@dataclass(frozen=True, kw_only=True)
class TuneMODPOConfig(MODPOConfig, TuneSettings):
    """Search settings for 'align modpo'."""

    evaluations_per_epoch: int = 2


@dataclass(frozen=True, kw_only=True)
class TuneJointConfig(JointConfig, TuneSettings):
    """Search settings for 'align joint'."""

    evaluations_per_epoch: int = 2


@dataclass(frozen=True, kw_only=True)
class TuneRewardConfig(RewardConfig, TuneSettings):
    """Search settings for 'reward'."""

    evaluations_per_epoch: int = 2


@dataclass(frozen=True)
class _Method:
    """A command that is searched for.

    Attributes:
        command: its name.
        settings: its dataclass.
        run: trains one model in a session.
        space: which part of a space file is its.
        output: the folder that a trial leaves behind.
    """

    command: str
    settings: type[TrainingConfig]
    run: Callable[[Any, Session], Phase]
    space: str
    output: str = "adapter"


def tune_sft(config: TuneSFTConfig) -> Phase:
    """Run ``tune sft``."""
    return _tune(config, _Method("align sft", SFTConfig, sft, "sft"))


def tune_dpo(config: TuneDPOConfig) -> Phase:
    """Run ``tune dpo``."""
    return _tune(config, _Method("align dpo", DPOConfig, dpo, "preference"))


def tune_modpo(config: TuneMODPOConfig) -> Phase:
    """Run ``tune modpo``."""
    return _tune(config, _Method("align modpo", MODPOConfig, modpo, "preference"))


def tune_joint(config: TuneJointConfig) -> Phase:
    """Run ``tune joint``."""
    return _tune(config, _Method("align joint", JointConfig, joint, "preference"))


def tune_reward(config: TuneRewardConfig) -> Phase:
    """Run ``tune reward``; the best settings are then trained on everything and carry the search's figures."""
    if config.all or config.refit or config.validation is not None:
        raise UserError("tune reward takes no --all, --refit or --validation: it searches for one criterion's settings")
    return _tune(config, _Method("reward", RewardConfig, reward, "reward", "model"))


def objective(values: Mapping[str, float], beta: float = 1.0) -> float:
    """Return what a trial is compared by, higher is better.

    Args:
        values: of a held-out evaluation.
        beta: that the margins were multiplied by.
    """
    accuracy = values.get("rewards/weighted_accuracies", values.get("rewards/accuracies"))
    if accuracy is None:
        return -values["loss"]
    margin = values["rewards/margins"] / beta
    return accuracy + TIE_BREAK * margin / (1 + abs(margin))


# --------------------------------------------------------------------------- the search


def _tune(config: Any, method: _Method) -> Phase:
    config.check()
    if config.trials < 1 or not config.validation_fraction > 0:
        raise UserError("a search needs --trials of at least 1 and a --validation-fraction above 0 to compare them by")
    space = load_space(config.space, method.space, method.settings)
    phase = open_phase(f"tune {method.command.split()[-1]}", config, _inputs(config))
    if phase.finished and phase.results["trials"] >= config.trials:
        return phase
    search = _Search(config, method, space, f"{phase.manifest['identity']['command']} {_name(phase)}")
    if leads():
        try:
            study = search.study()
            search.continue_cut_off(study)
            while (number := search.counted(study)) < config.trials:
                logger.info("trial %d of %d", number + 1, config.trials)
                study.optimize(search.lead, n_trials=1, catch=(Exception,))
                search.after(study)
        except UserError as error:
            search.tell_others({"error": str(error)})
            raise
        search.tell_others({"stop": True})
        return _finish(phase, study, config, method)
    search.follow()
    phase.finish()
    return phase


def _name(phase: Phase) -> str:
    """Return what tells searches in one storage apart: equal settings and inputs, wherever they run, share a study."""
    return digest(phase.manifest["identity"])[:12]


def _inputs(config: Any) -> dict[str, Path]:
    inputs = {"model": config.model}
    if isinstance(config, JointConfig):
        return inputs | {f"pairs {n}": Path(f) for n, f in named_values(config.pairs, "--pairs").items()}
    if isinstance(config, MODPOConfig):
        sources = margin_sources(named_values(config.margin, "--margin"))
        inputs |= {f"margin {name}": s.folder for name, s in sources.items() if s.folder is not None}
    data = {"pairs": config.pairs, "rankings": getattr(config, "rankings", None)}
    return inputs | {name: path for name, path in data.items() if path is not None}


class _Search:
    """Asks the study and runs its trials."""

    def __init__(self, config: Any, method: _Method, space: Space, name: str):
        self._config = config
        self._name = name
        self._method = method
        self._space = space
        self._session = Session(self._on_evaluation)
        self._trial: optuna.Trial | None = None
        self._beta = 1.0
        self._reported: set[int] = set()

    def study(self) -> optuna.Study:
        """Open or make the study."""
        config = self._config
        url = config.study or f"sqlite:///{(config.output_dir / 'study.db').absolute()}"
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
        try:
            storage = optuna.storages.RDBStorage(
                url,
                heartbeat_interval=HEARTBEAT_SECONDS,
                grace_period=5 * HEARTBEAT_SECONDS,
                heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=3),
            )
            study = optuna.create_study(
                storage=storage,
                study_name=self._name,
                direction="maximize",
                pruner=pruner if config.prune else optuna.pruners.NopPruner(),
                load_if_exists=True,
            )
        except Exception as error:
            # Its message may repeat the URL, which may hold a password.
            raise UserError(f"cannot open the study's storage ({type(error).__name__}); see --study") from error
        own = {name: getattr(config, name) for name in self._space}
        if not study.trials and all(self._space[name].holds(value) for name, value in own.items()):
            study.enqueue_trial(own)
        return study

    def continue_cut_off(self, study: optuna.Study) -> None:
        """Queue again what this machine was in the middle of when it was killed or told to end."""
        trials = study.get_trials(deepcopy=False)
        continued = {trial.user_attrs.get("continues") for trial in trials}
        for trial in trials:
            dead = trial.state == TrialState.RUNNING and _dead(trial.user_attrs.get("process", ""))
            ended = trial.state == TrialState.FAIL and trial.user_attrs.get("cut_off")
            if trial.number in continued or not (dead or ended):
                continue
            if dead:
                study.tell(trial.number, state=TrialState.FAIL)
            if trial.params:
                logger.info("trial %d was cut off and goes on", trial.number)
                study.enqueue_trial(trial.params, user_attrs={"continues": trial.number})

    def counted(self, study: optuna.Study) -> int:
        """Return how many trials are done or under way; those cut off do not count."""
        return sum(
            trial.state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING) or "reason" in trial.user_attrs
            for trial in study.get_trials(deepcopy=False)
        )

    def lead(self, trial: optuna.Trial) -> float:
        """Run a trial as the process that asks the study."""
        trial.set_user_attr("process", f"{socket.gethostname()}:{os.getpid()}")
        # Univariate sampling draws here: from the seed, the trial's number and the trials before it.
        seed = self._config.seed * 100_003 + trial.number
        trial.study.sampler = optuna.samplers.TPESampler(seed=seed)
        params = {name: dimension.suggest(trial, name) for name, dimension in self._space.items()}
        self.tell_others({"params": params})
        self._trial = trial
        try:
            return self.run(params, trial)
        except optuna.TrialPruned:
            raise
        except Preempted:
            trial.set_user_attr("cut_off", True)
            raise _CutOff from None
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:500]
            trial.set_user_attr("reason", reason)
            logger.warning("trial %d failed: %s", trial.number, reason)
            raise

    def run(self, params: Mapping[str, Any], trial: optuna.Trial | None) -> float:
        """Train with a trial's settings, in every process."""
        folder = self._config.output_dir / "trials" / digest(dict(params))[:12]
        self._beta = params.get("beta", getattr(self._config, "beta", 1.0))
        self._reported = set()
        if trial is not None:
            trial.set_user_attr("folder", str(folder.absolute()))
        results = self._method.run(_settings(self._config, self._method, params, folder), self._session).results
        values = {n.removeprefix("held_out_"): v for n, v in results.items() if n.startswith("held_out_")}
        if "loss" not in values:
            raise UserError("no evaluation was finite")
        if trial is not None:
            for name in ("updates", "best_epoch"):
                trial.set_user_attr(name, results[name])
            trial.set_user_attr("held_out", {n: v for n, v in values.items() if isinstance(v, float)})
            if self._method.settings is RewardConfig:
                trial.set_user_attr("validation", read_json(folder / "validation.json"))
        return objective(values, self._beta)

    def follow(self) -> None:
        """Run what the leading process asks for, until it says stop."""
        while True:
            message = agreed(lambda: None)
            if "error" in message:
                raise UserError(message["error"])
            if "stop" in message:
                return
            try:
                self.run(message["params"], None)
            except (optuna.TrialPruned, UserError) as error:
                logger.debug("the trial ended: %s", error)

    def tell_others(self, message: Mapping[str, Any]) -> None:
        agreed(lambda: message)

    def after(self, study: optuna.Study) -> None:
        """Look at what became of the last trial: give up where nothing works, and free what is not needed."""
        trials = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
        last = trials[-1] if trials else None
        if last is not None and last.user_attrs.get("cut_off"):
            raise Preempted("the search was asked to end")
        failed = [t for t in trials if "reason" in t.user_attrs]
        if len(failed) >= GIVE_UP_AFTER and len(failed) == len(trials):
            raise UserError(
                f"the first {len(failed)} trials all failed; the last one: {failed[-1].user_attrs['reason']}"
            )
        if not self._config.keep_trials:
            _free(study, self._config.output_dir.absolute(), self._method.output)

    def _on_evaluation(self, epoch: float, values: Mapping[str, float]) -> None:
        value, step = objective(values, self._beta), round(epoch * self._config.evaluations_per_epoch)

        def hopeless() -> bool:
            assert self._trial is not None
            # A trial that goes on from a checkpoint may come by an evaluation twice.
            if step not in self._reported:
                self._trial.report(value, step)
                self._reported.add(step)
            return self._trial.should_prune()

        if agreed(hopeless):
            raise optuna.TrialPruned(f"{value:.4f} after {epoch:.2f} epochs")


class _CutOff(Exception):
    """A trial that was told to end; Optuna counts it as failed, and the next run of the search goes on with it."""


def _dead(process: str) -> bool:
    """Whether a process of this machine is gone."""
    host, _, number = process.rpartition(":")
    if host != socket.gethostname() or not number.isdigit():
        return False
    if int(number) == os.getpid():
        return True  # this process has no trial under way while it looks
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


Config = TypeVar("Config")


def _settings(config: Any, method: _Method, params: Mapping[str, Any], folder: Path) -> Any:
    """Return a trial's settings: those of the search, with the trial's own."""
    mine = {f.name: getattr(config, f.name) for f in dataclasses.fields(method.settings)}
    best = "loss" if method.settings is SFTConfig else "accuracy"
    changed = {"output_dir": folder, "best_metric": best, "evaluations_per_epoch": config.evaluations_per_epoch}
    return method.settings(**mine | changed | dict(params))


def _free(study: optuna.Study, folder: Path, output: str) -> None:
    """Remove what trials that are not the best left behind, but for their figures."""
    done = [t for t in study.get_trials(deepcopy=False) if "folder" in t.user_attrs and t.state.is_finished()]
    complete = [t for t in done if t.state == TrialState.COMPLETE]
    best = max(complete, key=lambda t: t.value or 0.0).user_attrs["folder"] if complete else None
    for trial in done:
        own = Path(trial.user_attrs["folder"])
        # Other processes that share the study look after their own folders.
        if trial.user_attrs["folder"] != best and not trial.user_attrs.get("cut_off") and own.is_relative_to(folder):
            for name in (output, "checkpoints"):
                shutil.rmtree(own / name, ignore_errors=True)


# --------------------------------------------------------------------------- the end


def _finish(phase: Phase, study: optuna.Study, config: Any, method: _Method) -> Phase:
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    reasons = [trial.user_attrs["reason"] for trial in trials if "reason" in trial.user_attrs]
    if not complete:
        raise UserError(f"no trial ended well; the last failure: {reasons[-1] if reasons else 'none, all were pruned'}")
    best = study.best_trial
    settings = as_mapping(_settings(config, method, best.params, Path(best.user_attrs["folder"])))
    del settings["output_dir"]
    if method.settings is RewardConfig:
        carried = best.user_attrs["validation"] | {"measured_in": f"trial {best.number} of the search"}
        write_json(config.output_dir / "validation.json", carried)
        settings |= {
            "validation": str(config.output_dir / "validation.json"),
            "validation_fraction": 0.0,
            "epochs": max(1, math.ceil(best.user_attrs["best_epoch"])),
        }
    write_text(config.output_dir / "best.yaml", _yaml(settings, best, method.command))
    write_report(study, config.output_dir / "tune.html", method.command)
    counts = {
        "trials": len(complete) + sum(t.state == TrialState.PRUNED for t in trials) + len(reasons),
        "complete": len(complete),
        "pruned": sum(trial.state == TrialState.PRUNED for trial in trials),
        "failed": len(reasons),
    }
    logger.info(
        "best: trial %d, %.4f, %s; jaxmodpo %s --config %s --output-dir … trains it",
        best.number,
        best.value,
        ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in best.params.items()
        ),
        method.command,
        config.output_dir / "best.yaml",
    )
    phase.finish(**counts, best_trial=best.number, best_value=best.value, best=best.params, **_held_out(best))
    return phase


def _held_out(best: FrozenTrial) -> dict[str, Any]:
    return {f"held_out_{name}": value for name, value in best.user_attrs.get("held_out", {}).items()}


def _yaml(settings: Mapping[str, Any], best: FrozenTrial, command: str) -> str:
    import yaml

    head = (
        f"# Trial {best.number} of a search, {best.value:.4f}: jaxmodpo {command} --config FILE --output-dir FOLDER\n"
    )
    return head + yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
