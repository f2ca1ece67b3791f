"""``jaxmodpo tune``: a search for settings, with Optuna, over runs that share one loaded base.

A trial is an ordinary run in ``trials/``, in a folder named by its settings, so that a trial that
was cut off goes on from its checkpoint. What trials are compared by does not depend on the settings
that vary: held-out preference accuracy, weighted where there are several objectives, with the
margin as a tie-break. A loss would not do, since losses of different β are different quantities.
SFT compares nothing; there it is the held-out log-likelihood of a token, which has no constants.

Several processes may share a study by its URL. Of several hosts that train together, the first one
asks and tells, and all run every trial.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optuna
from jax.experimental import multihost_utils
from optuna.trial import TrialState

from jaxmodpo.errors import Preempted, UserError
from jaxmodpo.fingerprints import digest
from jaxmodpo.methods.dpo import dpo
from jaxmodpo.methods.joint import joint
from jaxmodpo.methods.modpo import modpo
from jaxmodpo.methods.reward import RewardConfig, reward
from jaxmodpo.methods.sft import sft
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.distributed import broadcast, leads, open_together
from jaxmodpo.policy.prompts import on_one_day
from jaxmodpo.processes import this_process
from jaxmodpo.results.reward import VALIDATION, Validation
from jaxmodpo.results.versioned import plain, read_result
from jaxmodpo.search.best import Method, finish_search, params_in_words
from jaxmodpo.search.proposals import evaluations_before, propose
from jaxmodpo.search.settings import (
    TuneDPOConfig,
    TuneJointConfig,
    TuneMODPOConfig,
    TuneRewardConfig,
    TuneSFTConfig,
    trial_settings,
)
from jaxmodpo.search.space import Space, load_space
from jaxmodpo.search.study import (
    STORAGE_FAULTS,
    continue_cut_off,
    free,
    open_storage,
    storage_in_words,
    tried,
)
from jaxmodpo.training.session import Session

logger = logging.getLogger(__name__)

TIE_BREAK = 1e-4
"""what a margin can add to an accuracy at most"""

GIVE_UP_AFTER = 5
"""failed trials in a row, with none before them that did not fail"""


@in_phase("tune sft", open_together)
def tune_sft(config: TuneSFTConfig, phase: Phase) -> None:
    """Run ``tune sft``."""
    _tune(config, phase, Method("align sft", sft))


@in_phase("tune dpo", open_together)
def tune_dpo(config: TuneDPOConfig, phase: Phase) -> None:
    """Run ``tune dpo``."""
    _tune(config, phase, Method("align dpo", dpo))


@in_phase("tune modpo", open_together)
def tune_modpo(config: TuneMODPOConfig, phase: Phase) -> None:
    """Run ``tune modpo``."""
    _tune(config, phase, Method("align modpo", modpo))


@in_phase("tune joint", open_together)
def tune_joint(config: TuneJointConfig, phase: Phase) -> None:
    """Run ``tune joint``."""
    _tune(config, phase, Method("align joint", joint))


@in_phase("tune reward", open_together)
def tune_reward(config: TuneRewardConfig, phase: Phase) -> None:
    """Run ``tune reward``; its ``best.yaml`` trains a model on everything, which carries the best
    trial's figures.

    They are another model's: the trial saw less data, and was stopped within a longer schedule than
    the final one's.
    """
    _tune(config, phase, Method("reward", reward, "model"))


def objective(values: Mapping[str, float], beta: float = 1.0) -> float:
    """Return what a trial is compared by, higher is better; NaN where a figure is not finite, which
    is never the best.

    Args:
        values: of a held-out evaluation.
        beta: that the margins were multiplied by.
    """
    accuracy = values.get("rewards/weighted_accuracies", values.get("rewards/accuracies"))
    if accuracy is None:
        return -values["loss"]
    margin = values.get("rewards/margins", math.nan) / beta
    return accuracy + TIE_BREAK * margin / (1 + abs(margin))


# --------------------------------------------------------------------------- the search


def _tune(config: Any, phase: Phase, method: Method) -> None:
    space = load_space(config.space, config.part, config.trains)
    config = on_one_day(config, phase)
    search = _Search(config, method, space, f"{phase.manifest.identity.command} {_name(phase)}")
    if not leads():
        search.follow()
        phase.finish()
        return
    try:
        study = search.study()
        with storage_in_words():
            continue_cut_off(study, config.output_dir.absolute())
            while (number := search.counted(study)) < config.trials:
                logger.info("%d of %d trials done or under way", number, config.trials)
                study.optimize(search.lead, n_trials=1, catch=(_Failed,))
                search.after(study)
    except Preempted:  # in the other processes too
        raise
    except Exception as error:
        search.tell_others({"error": _sentence(error)})
        raise
    search.tell_others({"stop": True})
    with storage_in_words():
        finish_search(phase, study, config, method)


def _name(phase: Phase) -> str:
    """Return what tells searches in one storage apart: equal settings and inputs, wherever they
    run, share a study.
    """
    return phase.manifest.identity.digest()[:12]


class _Search:
    """Asks the study and runs its trials."""

    def __init__(self, config: Any, method: Method, space: Space, name: str):
        self._config = config
        self._name = name
        self._method = method
        self._space = space
        self._session = Session(self._on_evaluation)
        self._trial: optuna.Trial | None = None
        self._beta = 1.0
        self._reported: set[int] = set()
        self._before: dict[int, float] = {}
        self._storage_fault = ""

    def study(self) -> optuna.Study:
        """Open or make the study."""
        config = self._config
        url = config.study or f"sqlite:///{(config.output_dir / 'study.db').absolute()}"
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        median = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
        pruner = median if config.prune else optuna.pruners.NopPruner()
        try:
            storage = open_storage(url)
            others = [name for name in optuna.get_all_study_names(storage) if name != self._name]
            study = optuna.create_study(
                storage=storage,
                study_name=self._name,
                direction="maximize",
                pruner=pruner,
                load_if_exists=True,
            )
        except UserError:
            raise
        except Exception as error:
            # Its message may repeat the URL, which may hold a password.
            raise UserError(
                f"cannot open the study's storage ({type(error).__name__}); see --study"
            ) from error
        if others and not study.get_trials(deepcopy=False):
            logger.info(
                "the storage holds %d other searches; they share nothing with this one", len(others)
            )
        return study

    def counted(self, study: optuna.Study) -> int:
        """Return how many trials are done or under way, after failing those whose process has long
        been silent.

        Those cut off do not count.
        """
        optuna.storages.fail_stale_trials(study)
        return sum(
            t.state == TrialState.RUNNING or tried(t) for t in study.get_trials(deepcopy=False)
        )

    def lead(self, trial: optuna.Trial) -> float:
        """Run a trial as the process that asks the study.

        Raises:
            _Failed: it failed, and the trial has its reason.
            optuna.TrialPruned: it was hopeless.
            Preempted: the search is to end; as with Ctrl-C, the next run goes on with the trial.
            UserError: the study's storage failed, which is no fault of the trial's; likewise.
        """
        trial.set_user_attr("process", this_process())
        try:
            return self._run_asked(trial)
        except (Preempted, KeyboardInterrupt) as end:
            trial.set_user_attr("cut_off", True)
            if isinstance(end, Preempted):
                # Optuna ends a trial for exceptions and for Ctrl-C; this one it would leave
                # running.
                trial.study.tell(trial, state=TrialState.FAIL)
            raise
        except (_Failed, UserError) as error:
            if self._storage_fault:
                trial.set_user_attr("cut_off", True)
                raise UserError(
                    f"{self._storage_fault}; run the same command again, which goes on"
                ) from error
            trial.set_user_attr("reason", str(error))
            logger.warning("trial %d failed: %s", trial.number, error)
            raise _Failed(str(error)) from error

    def _run_asked(self, trial: optuna.Trial) -> float:
        """Choose a trial's settings and run it; return what it is compared by."""
        own = {name: getattr(self._config, name) for name in self._space}
        params = propose(trial, self._space, self._config.seed, own)
        logger.info("trial %d begins: %s", trial.number, params_in_words(params))
        folder = self._folder(params)
        trial.set_user_attr("folder", str(folder.absolute()))
        self.tell_others({"params": params})
        self._trial = trial
        self._before = evaluations_before(trial.study, trial.number)
        results = self.run(params)
        values = _values(results)
        self._report_earlier(math.inf)
        compared = objective(values, self._beta)
        if not math.isfinite(compared):
            raise _Failed("its held-out figures are not finite")
        for name in ("updates", "best_epoch"):
            trial.set_user_attr(name, results[name])
        trial.set_user_attr("held_out", {n: v for n, v in values.items() if isinstance(v, float)})
        if self._config.trains is RewardConfig:
            trial.set_user_attr("validation", plain(read_result(folder / VALIDATION, Validation)))
        return compared

    def run(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Train with a trial's settings, in every process; return the run's results, in the leading
        one.

        Raises:
            _Failed: in every process, where it failed in any. (One that fails while the others wait
                for its numbers within a step cannot tell them; there the search ends, as when a
                process dies.)
            optuna.TrialPruned, Preempted: in every process too.
        """
        self._beta = params.get("beta", getattr(self._config, "beta", 1.0))
        self._reported = set()
        fault, results = "", {}
        try:
            settings = trial_settings(self._config, params, self._folder(params))
            results = self._method.run(settings, self._session).results
        except (optuna.TrialPruned, Preempted):
            raise
        except Exception as error:
            fault = _sentence(error)
            logger.debug("the trial failed here", exc_info=True)
        if fault := _in_any_process(fault):
            raise _Failed(fault)
        return results

    def _folder(self, params: Mapping[str, Any]) -> Path:
        return self._config.output_dir / "trials" / digest(dict(params))[:12]

    def follow(self) -> None:
        """Run what the leading process asks for, until it says stop."""
        while True:
            message = broadcast(lambda: None)
            if "error" in message:
                raise UserError(message["error"])
            if "stop" in message:
                return
            try:
                self.run(message["params"])
            except (optuna.TrialPruned, _Failed) as error:
                logger.debug("the trial ended: %s", error)

    def tell_others(self, message: Mapping[str, Any]) -> None:
        broadcast(lambda: message)

    def after(self, study: optuna.Study) -> None:
        """Look at what became of the trials so far: give up where nothing works, and free what is
        not needed.
        """
        ended = [trial for trial in study.get_trials(deepcopy=False) if tried(trial)]
        failed = [trial for trial in ended if "reason" in trial.user_attrs]
        if len(failed) >= GIVE_UP_AFTER and len(failed) == len(ended):
            raise UserError(
                f"the first {len(failed)} trials all failed; the last one:"
                f" {failed[-1].user_attrs['reason']}"
            )
        if not self._config.keep_trials:
            free(study, self._config.output_dir.absolute(), self._method.output)

    def _on_evaluation(self, epoch: float, values: Mapping[str, float]) -> None:
        value, step = (
            objective(values, self._beta),
            round(epoch * self._config.evaluations_per_epoch),
        )

        def hopeless() -> bool:
            assert self._trial is not None
            try:
                # A trial that goes on from a checkpoint may come by an evaluation twice.
                self._report_earlier(step)
                if step not in self._reported:
                    self._trial.report(value, step)
                    self._reported.add(step)
                return self._trial.should_prune()
            except (
                Exception
            ) as error:  # the others wait for an answer, and hear of a UserError alone
                said = f"the study did not take an evaluation: {_sentence(error)}"
                self._storage_fault = said if isinstance(error, STORAGE_FAULTS) else ""
                raise UserError(said) from error

        if broadcast(hopeless):
            raise optuna.TrialPruned(f"{value:.4f} after {epoch:.2f} epochs")

    def _report_earlier(self, step: float) -> None:
        """Report the evaluations before ``step`` that this trial had before it was cut off.

        The checkpoint that it goes on from lies behind them. Without them, it and later trials
        would be pruned otherwise than in a search that nothing disturbed.
        """
        assert self._trial is not None
        for earlier in sorted(self._before.keys() - self._reported):
            if earlier < step:
                self._trial.report(self._before[earlier], earlier)
                self._reported.add(earlier)


class _Failed(Exception):
    """A trial that failed in some process, with its reason; the search goes on."""


def _sentence(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500]


def _in_any_process(fault: str) -> str:
    """Return the first fault that any process has, or nothing; every process must ask."""
    if jax.process_count() == 1:
        return fault
    mine = np.zeros(500, np.uint8)
    said = np.frombuffer(fault.encode()[: len(mine)], np.uint8)
    mine[: len(said)] = said
    faults = [
        bytes(row.tolist()).rstrip(b"\0")
        for row in np.asarray(multihost_utils.process_allgather(mine))
    ]
    return next((f.decode(errors="ignore") for f in faults if f), "")


def _values(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the best evaluation of a run.

    Raises:
        UserError: there is none to compare the run by.
    """
    values = {
        n.removeprefix("held_out_"): v for n, v in results.items() if n.startswith("held_out_")
    }
    if "best_epoch" not in results:
        raise UserError(
            "nothing was held out: there are too few questions for this --validation-fraction"
        )
    if "loss" not in values:
        raise UserError("no evaluation was finite")
    return values
