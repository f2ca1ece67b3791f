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
from typing import Any

from jaxmodpo.errors import Preempted
from jaxmodpo.methods.dpo import dpo
from jaxmodpo.methods.joint import joint
from jaxmodpo.methods.modpo import modpo
from jaxmodpo.methods.reward import reward
from jaxmodpo.methods.sft import sft
from jaxmodpo.phase import Phase, in_phase
from jaxmodpo.policy.distributed import leads, open_together
from jaxmodpo.policy.prompts import on_one_day
from jaxmodpo.search.best import Method, finish_search
from jaxmodpo.search.settings import (
    SearchConfig,
    TuneDPOConfig,
    TuneJointConfig,
    TuneMODPOConfig,
    TuneRewardConfig,
    TuneSFTConfig,
)
from jaxmodpo.search.study import continue_cut_off, storage_in_words
from jaxmodpo.search.trials import TrialFailed, TrialRunner, in_one_sentence
from jaxmodpo.training.settings import PolicyTrainingConfig

logger = logging.getLogger(__name__)


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


# --------------------------------------------------------------------------- the search


def _tune(config: SearchConfig, phase: Phase, method: Method) -> None:
    """Search: the leading process asks the study for one trial after another, and all run each."""
    # Taken before the settings are changed, so that the file of the space is read once.
    space = config.loaded_space
    # A reward model reads its texts without a prompt.
    if isinstance(config, PolicyTrainingConfig):
        config = on_one_day(config, phase)
    runner = TrialRunner(config, method, space, _study_name(phase))
    if not leads():
        runner.follow()
        phase.finish()
        return
    try:
        study = runner.open_study()
        with storage_in_words():
            continue_cut_off(study, config.output_dir.absolute())
            _run_trials(runner, study, config.trials)
    except Preempted:  # in the other processes too
        raise
    except Exception as error:
        # They wait for the next trial, and would wait for ever.
        runner.tell_others({"error": in_one_sentence(error)})
        raise
    runner.tell_others({"stop": True})
    with storage_in_words():
        finish_search(phase, study, config, method)


def _run_trials(runner: TrialRunner, study: Any, trials: int) -> None:
    """Run trials one by one until the study has as many as were asked for.

    The study is counted anew before each: other processes that share it add trials meanwhile, and
    one whose process died no longer counts.
    """
    while True:
        begun = runner.count_begun(study)
        if begun >= trials:
            return
        logger.info("%d of %d trials done or under way", begun, trials)
        study.optimize(runner.lead, n_trials=1, catch=(TrialFailed,))
        runner.after_trial(study)


def _study_name(phase: Phase) -> str:
    """Return what tells searches in one storage apart: equal settings and inputs, wherever they
    run, share a study.
    """
    identity = phase.manifest.identity
    return f"{identity.command} {identity.digest()[:12]}"
