"""One trial after another: asks the study for settings, trains with them, reports how it went.

The difficult cases are all about trials that end in the middle. A trial that is interrupted is
*cut off* and goes on at the next start; a trial that breaks down has *failed*, with a reason, and
is not tried again; a database that is away while a trial reports is no fault of the trial's. Which
of them happened stands in the trial's attributes, since it is the next process that must know.

With several processes, one leads: it alone talks to the study and tells the others which settings
to train with. What one process decides in the middle of a trial, all must decide at the same
evaluation, or they wait for each other for ever; so decisions are broadcast.
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
from jaxmodpo.methods.reward_settings import RewardConfig
from jaxmodpo.policy.distributed import broadcast
from jaxmodpo.processes import this_process
from jaxmodpo.results.reward import VALIDATION, Validation
from jaxmodpo.results.versioned import plain, read_result
from jaxmodpo.search.best import Method, params_in_words
from jaxmodpo.search.objective import best_evaluation, objective
from jaxmodpo.search.proposals import evaluations_before, propose
from jaxmodpo.search.settings import SearchConfig, trial_settings
from jaxmodpo.search.space import Space
from jaxmodpo.search.study import STORAGE_FAULTS, free, has_ended, open_storage
from jaxmodpo.training.session import Session
from jaxmodpo.training.settings import PreferenceTrainingConfig

logger = logging.getLogger(__name__)

GIVE_UP_AFTER = 5
"""failed trials in a row, with none before them that did not fail"""

_SENTENCE_LENGTH = 500
"""bytes of a sentence that processes exchange"""


class TrialFailed(Exception):
    """A trial that failed in some process, with its reason; the search goes on."""


class TrialRunner:
    """Asks the study and runs its trials."""

    def __init__(self, config: SearchConfig, method: Method, space: Space, study_name: str):
        self._config = config
        self._study_name = study_name
        self._method = method
        self._space = space
        self._session = Session(self._on_evaluation)
        self._trial: optuna.Trial | None = None
        self._beta = 1.0
        # Steps whose evaluations the study has for this trial; it refuses to be told twice.
        self._reported_steps: set[int] = set()
        # Evaluations that the trial had before it was cut off, by step.
        self._earlier_evaluations: dict[int, float] = {}
        self._storage_fault = ""

    def open_study(self) -> optuna.Study:
        """Open the study, or make it.

        Raises:
            UserError: its storage cannot be opened.
        """
        config = self._config
        url = config.study or f"sqlite:///{(config.output_dir / 'study.db').absolute()}"
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if config.prune:
            # A median of fewer than five trials, or of first evaluations, would stop good ones.
            pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
        try:
            storage = open_storage(url)
            names = optuna.get_all_study_names(storage)
            study = optuna.create_study(
                storage=storage,
                study_name=self._study_name,
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
        other_searches = [name for name in names if name != self._study_name]
        if other_searches and not study.get_trials(deepcopy=False):
            # Most likely one meant to go on with a search, and changed a setting.
            logger.info(
                "the storage holds %d other searches; they share nothing with this one",
                len(other_searches),
            )
        return study

    def count_begun(self, study: optuna.Study) -> int:
        """Return how many trials are done or under way, after failing those whose process has long
        been silent.

        Those cut off do not count.
        """
        optuna.storages.fail_stale_trials(study)
        begun = 0
        for trial in study.get_trials(deepcopy=False):
            begun += trial.state == TrialState.RUNNING or has_ended(trial)
        return begun

    def lead(self, trial: optuna.Trial) -> float:
        """Run a trial as the process that asks the study.

        Raises:
            TrialFailed: it failed, and the trial has its reason.
            optuna.TrialPruned: it was hopeless.
            Preempted: the search is to end; as with Ctrl-C, the next run goes on with the trial.
            UserError: the study's storage failed, which is no fault of the trial's; likewise.
        """
        # Whoever finds the trial running later can see whether this process is still there.
        trial.set_user_attr("process", this_process())
        try:
            return self._run_new(trial)
        except (Preempted, KeyboardInterrupt) as end:
            trial.set_user_attr("cut_off", True)
            if isinstance(end, Preempted):
                # Optuna ends a trial for exceptions and for Ctrl-C; this one it would leave
                # running.
                trial.study.tell(trial, state=TrialState.FAIL)
            raise
        except (TrialFailed, UserError) as error:
            if self._storage_fault:
                trial.set_user_attr("cut_off", True)
                raise UserError(
                    f"{self._storage_fault}; run the same command again, which goes on"
                ) from error
            trial.set_user_attr("reason", str(error))
            logger.warning("trial %d failed: %s", trial.number, error)
            raise TrialFailed(str(error)) from error

    def _run_new(self, trial: optuna.Trial) -> float:
        """Choose a trial's settings and run it; return what it is compared by."""
        config_values = {name: getattr(self._config, name) for name in self._space}
        params = propose(trial, self._space, self._config.seed, config_values)
        logger.info("trial %d begins: %s", trial.number, params_in_words(params))
        folder = self._folder(params)
        trial.set_user_attr("folder", str(folder.absolute()))
        self.tell_others({"params": params})
        self._trial = trial
        self._earlier_evaluations = evaluations_before(trial.study, trial.number)
        results = self.run(params)
        values = best_evaluation(results)
        # A trial that had ended its training before it was cut off evaluates nothing again.
        self._report_earlier(math.inf)
        compared = objective(values, self._beta)
        if not math.isfinite(compared):
            raise TrialFailed("its held-out figures are not finite")
        for name in ("updates", "best_epoch"):
            trial.set_user_attr(name, results[name])
        held_out = {name: value for name, value in values.items() if isinstance(value, float)}
        trial.set_user_attr("held_out", held_out)
        if self._config.trains is RewardConfig:
            # The trial's model may be removed; its figures go on to the final model.
            validation = read_result(folder / VALIDATION, Validation)
            trial.set_user_attr("validation", plain(validation))
        return compared

    def run(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Train with a trial's settings, in every process; return the run's results, in the leading
        one.

        Raises:
            TrialFailed: in every process, where it failed in any. (One that fails while the others
                wait for its numbers within a step cannot tell them; there the search ends, as when
                a process dies.)
            optuna.TrialPruned, Preempted: in every process too.
        """
        # Neither SFT nor a reward model multiplies its margins.
        config = self._config
        beta = config.beta if isinstance(config, PreferenceTrainingConfig) else 1.0
        self._beta = params.get("beta", beta)
        self._reported_steps = set()
        fault = ""
        results: Mapping[str, Any] = {}
        try:
            settings = trial_settings(self._config, params, self._folder(params))
            results = self._method.run(settings, self._session).results
        except (optuna.TrialPruned, Preempted):
            raise
        except Exception as error:
            fault = in_one_sentence(error)
            logger.debug("the trial failed here", exc_info=True)
        fault = _first_fault(fault)
        if fault:
            raise TrialFailed(fault)
        return results

    def _folder(self, params: Mapping[str, Any]) -> Path:
        """Return a trial's folder, named by its settings, so that the same settings go on there."""
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
            except (optuna.TrialPruned, TrialFailed) as error:
                logger.debug("the trial ended: %s", error)

    def tell_others(self, message: Mapping[str, Any]) -> None:
        """Send a message to the processes that follow: params, stop or error."""
        broadcast(lambda: message)

    def after_trial(self, study: optuna.Study) -> None:
        """Look at what became of the trials so far: give up where nothing works, and free what is
        not needed.
        """
        ended = [trial for trial in study.get_trials(deepcopy=False) if has_ended(trial)]
        failed = [trial for trial in ended if "reason" in trial.user_attrs]
        if len(failed) >= GIVE_UP_AFTER and len(failed) == len(ended):
            raise UserError(
                f"the first {len(failed)} trials all failed; the last one:"
                f" {failed[-1].user_attrs['reason']}"
            )
        if not self._config.keep_trials:
            free(study, self._config.output_dir.absolute(), self._method.output)

    def _on_evaluation(self, epoch: float, values: Mapping[str, float]) -> None:
        """Report an evaluation, and end the trial in every process if it is hopeless."""
        value = objective(values, self._beta)
        # Optuna compares trials at whole numbers.
        step = round(epoch * self._config.evaluations_per_epoch)
        if broadcast(lambda: self._is_hopeless(value, step)):
            raise optuna.TrialPruned(f"{value:.4f} after {epoch:.2f} epochs")

    def _is_hopeless(self, value: float, step: int) -> bool:
        """Report an evaluation to the study; return whether the trial should be pruned.

        Raises:
            UserError: the study did not take it. No other error may leave this function, since the
                other processes wait for an answer, and hear of a UserError alone.
        """
        assert self._trial is not None
        try:
            # A trial that goes on from a checkpoint may come by an evaluation twice.
            self._report_earlier(step)
            if step not in self._reported_steps:
                self._trial.report(value, step)
                self._reported_steps.add(step)
            return self._trial.should_prune()
        except Exception as error:
            sentence = f"the study did not take an evaluation: {in_one_sentence(error)}"
            self._storage_fault = sentence if isinstance(error, STORAGE_FAULTS) else ""
            raise UserError(sentence) from error

    def _report_earlier(self, step: float) -> None:
        """Report the evaluations before ``step`` that this trial had before it was cut off.

        The checkpoint that it goes on from lies behind them. Without them, it and later trials
        would be pruned otherwise than in a search that nothing disturbed.
        """
        assert self._trial is not None
        unreported_steps = self._earlier_evaluations.keys() - self._reported_steps
        for earlier_step in sorted(unreported_steps):
            if earlier_step < step:
                self._trial.report(self._earlier_evaluations[earlier_step], earlier_step)
                self._reported_steps.add(earlier_step)


def in_one_sentence(error: Exception) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_SENTENCE_LENGTH]


def _first_fault(fault: str) -> str:
    """Return the first fault that any process has, or nothing; every process must ask."""
    if jax.process_count() == 1:
        return fault
    # Processes can gather arrays of one shape only, so the text travels as zero-padded bytes.
    message = np.zeros(_SENTENCE_LENGTH, np.uint8)
    encoded = np.frombuffer(fault.encode()[:_SENTENCE_LENGTH], np.uint8)
    message[: len(encoded)] = encoded
    for row in np.asarray(multihost_utils.process_allgather(message)):
        text = bytes(row.tolist()).rstrip(b"\0")
        if text:
            return text.decode(errors="ignore")
    return ""
