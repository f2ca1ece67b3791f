"""The table of commands: where each one lives, and how the overview lists them::

    settings, function = load("align dpo")  # DPOConfig and dpo of jaxmodpo.methods.dpo

The command line, experiment files and estimates read this table. Nothing heavy is imported before a
command is loaded, so that ``jaxmodpo --help`` answers at once.

A command of two words belongs to a family, the first word. The overview gives a family one line,
and ``jaxmodpo FAMILY`` lists its members.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import NamedTuple

from jaxmodpo.launched import Processes


class Command(NamedTuple):
    """Where a command lives.

    Attributes:
        module: below ``jaxmodpo``.
        settings: the name of its settings' dataclass in that module.
        function: the name of the function that runs it, in the same module.
        about: one line of help.
        processes: what becomes of it where a launcher starts it several times.
    """

    module: str
    settings: str
    function: str
    about: str
    processes: Processes = "first"


SECTIONS: Mapping[str, Mapping[str, Command]] = {
    "Start here": {
        "demo": Command(
            "sandbox.demo",
            "DemoConfig",
            "demo",
            "the whole experiment in a small synthetic world",
            processes="one",
        ),
        "run": Command(
            "run",
            "RunConfig",
            "run",
            "run an experiment file, skipping finished phases",
            processes="one",
        ),
        "fit": Command(
            "bench.fit",
            "FitConfig",
            "fit",
            "whether training or sampling fits TPUs or GPUs, and its cost",
        ),
    },
    "Data": {
        "questions": Command(
            "data.questions", "QuestionsConfig", "questions", "clean and split help-seeking posts"
        ),
        "personas": Command(
            "personas.command", "PersonasConfig", "personas", "turn a survey into patient personas"
        ),
        "pairs": Command(
            "data.scored", "PairsConfig", "pairs", "make preference pairs of scored answers"
        ),
    },
    "Train": {
        "reward": Command(
            "methods.reward",
            "RewardConfig",
            "reward",
            "train a reward model on preference pairs",
            processes="all",
        ),
        "align sft": Command(
            "methods.sft", "SFTConfig", "sft", "fine-tune on chosen replies", processes="all"
        ),
        "align dpo": Command(
            "methods.dpo", "DPOConfig", "dpo", "align to one objective", processes="all"
        ),
        "align modpo": Command(
            "methods.modpo",
            "MODPOConfig",
            "modpo",
            "align to several, reward models as margins",
            processes="all",
        ),
        "align joint": Command(
            "methods.joint",
            "JointConfig",
            "joint",
            "align to several, one loss over their pairs",
            processes="all",
        ),
        "soup": Command("methods.soup", "SoupConfig", "soup", "average adapters"),
        "export": Command(
            "models.export", "ExportConfig", "export", "merge an adapter into a full model folder"
        ),
    },
    "Sample, judge and measure": {
        "responses": Command(
            "sampling.command",
            "ResponsesConfig",
            "run_responses",
            "sample replies from a model",
            processes="all",
        ),
        "preferences": Command(
            "judging.preferences",
            "PreferencesConfig",
            "preferences",
            "let personas rank replies, for preference pairs",
        ),
        "evaluate": Command(
            "evaluation.head_to_head", "EvaluateConfig", "evaluate", "judge models head to head"
        ),
        "probes": Command(
            "probes.command",
            "ProbesConfig",
            "probes",
            "put crisis probes to models and check the replies",
        ),
        "toxicity": Command(
            "toxicity.command",
            "ToxicityConfig",
            "toxicity",
            "score replies for toxicity and compare models",
        ),
        "votes": Command(
            "judging.export",
            "VotesConfig",
            "votes",
            "write a ledger's votes to Parquet or JSON Lines",
        ),
        "judges": Command(
            "evaluation.judges", "JudgesConfig", "judges", "measure how far judges can be believed"
        ),
        "score policy": Command(
            "methods.score", "ScorePolicyConfig", "score_policy", "log-probabilities of pairs"
        ),
        "score reward": Command(
            "methods.score", "ScoreRewardConfig", "score_reward", "rewards of pairs"
        ),
        "score kl": Command(
            "methods.score_kl",
            "ScoreKLConfig",
            "score_kl",
            "how far policies moved from their base",
        ),
        "report": Command(
            "report.command", "ReportConfig", "report", "one HTML file about finished runs"
        ),
        "verify": Command(
            "verify", "VerifyConfig", "verify", "compare finished folders with their manifests"
        ),
    },
    "Ask people": {
        "study sample": Command(
            "study.sample",
            "StudySampleConfig",
            "study_sample",
            "pick the questions of a blinded human study",
        ),
        "study serve": Command(
            "study.serve",
            "StudyServeConfig",
            "study_serve",
            "the web application in which raters answer",
            processes="one",
        ),
        "study links": Command(
            "study.links",
            "StudyLinksConfig",
            "study_links",
            "personal links for raters",
            processes="one",
        ),
        "study status": Command(
            "study.status",
            "StudyStatusConfig",
            "study_status",
            "how a running study goes",
            processes="one",
        ),
        "study export": Command(
            "study.export",
            "StudyExportConfig",
            "study_export",
            "the answers of a study as a file",
            processes="one",
        ),
        "study simulate": Command(
            "study.simulate",
            "StudySimulateConfig",
            "study_simulate",
            "answers of simulated raters, to rehearse a study's analysis",
        ),
        "study analyze": Command(
            "study.analyze",
            "StudyAnalyzeConfig",
            "study_analyze",
            "what people prefer, and how far a judge agrees",
        ),
    },
    "Search": {
        "tune reward": Command(
            "search.tune",
            "TuneRewardConfig",
            "tune_reward",
            "search a reward model's settings",
            processes="all",
        ),
        "tune sft": Command(
            "search.tune", "TuneSFTConfig", "tune_sft", "search SFT's settings", processes="all"
        ),
        "tune dpo": Command(
            "search.tune", "TuneDPOConfig", "tune_dpo", "search DPO's settings", processes="all"
        ),
        "tune modpo": Command(
            "search.tune",
            "TuneMODPOConfig",
            "tune_modpo",
            "search MODPO's settings",
            processes="all",
        ),
        "tune joint": Command(
            "search.tune",
            "TuneJointConfig",
            "tune_joint",
            "search Joint-Loss DPO's settings",
            processes="all",
        ),
        "sweep": Command(
            "search.sweep",
            "SweepConfig",
            "sweep",
            "MODPO and soups over a grid of weights",
            processes="one",
        ),
    },
    "For developers": {
        "bench step": Command(
            "bench.step", "BenchStepConfig", "bench_step", "training speed, also against TRL"
        ),
        "bench reward": Command(
            "bench.reward",
            "BenchRewardConfig",
            "bench_reward",
            "speed of training a reward model, also against TRL",
        ),
        "bench sample": Command(
            "bench.sample",
            "BenchSampleConfig",
            "bench_sample",
            "sampling speed, also against transformers' generate",
        ),
        "bench losses": Command(
            "bench.losses",
            "BenchLossesConfig",
            "bench_losses",
            "speed and memory of the losses, also against TRL",
        ),
        "bench logps": Command(
            "bench.logps", "BenchLogpsConfig", "bench_logps", "memory of chunked log-probabilities"
        ),
        "bench parity": Command(
            "bench.parity", "BenchParityConfig", "bench_parity", "compare with transformers"
        ),
        "bench load": Command(
            "bench.load", "BenchLoadConfig", "bench_load", "host memory and time of loading a model"
        ),
        "bench real": Command(
            "bench.real",
            "BenchRealConfig",
            "bench_real",
            "small models on real preferences",
            processes="one",
        ),
        "bench resume": Command(
            "bench.resume",
            "BenchResumeConfig",
            "bench_resume",
            "kill a run often, compare",
            processes="one",
        ),
        "bench judge": Command(
            "bench.judge", "BenchJudgeConfig", "bench_judge", "speed and memory of judging"
        ),
        "bench study": Command(
            "bench.study",
            "BenchStudyConfig",
            "bench_study",
            "many raters at once: speed, and that nothing is lost",
        ),
        "bench injection": Command(
            "bench.injection",
            "BenchInjectionConfig",
            "bench_injection",
            "do replies that give orders win?",
        ),
        "bench analysis": Command(
            "bench.analysis",
            "BenchAnalysisConfig",
            "bench_analysis",
            "time and memory from votes to a report",
        ),
        "bench scale": Command(
            "bench.scale",
            "BenchScaleConfig",
            "bench_scale",
            "how costs grow with the size",
        ),
        "bench coverage": Command(
            "bench.coverage",
            "BenchCoverageConfig",
            "bench_coverage",
            "how often intervals hold the true rate",
        ),
        "schemas": Command(
            "json_schemas",
            "SchemasConfig",
            "schemas",
            "JSON Schemas of settings files, for editors",
        ),
        "sandbox world": Command(
            "sandbox.world", "WorldConfig", "world", "posts, a survey and tiny models"
        ),
        "sandbox check": Command(
            "sandbox.check", "CheckConfig", "check", "count malformed replies"
        ),
        "sandbox fronts": Command(
            "sandbox.fronts",
            "FrontsConfig",
            "fronts",
            "MODPO against soups, true rewards",
            processes="one",
        ),
        "sandbox tune": Command(
            "sandbox.tuning", "TuneConfig", "tune", "choose the demo's settings", processes="one"
        ),
    },
}
"""commands by section of the overview, in its order"""

FAMILIES: Mapping[str, str] = {
    "align": "align a policy",
    "score": "log-probabilities and rewards of pairs, a policy's divergence",
    "study": "a blinded human study",
    "tune": "search settings by held-out questions",
    "bench": "measure speed, memory and parity",
    "sandbox": "the synthetic world of the demo",
}
"""what the members of a family have in common"""

COMMANDS: Mapping[str, Command] = {
    name: command for section in SECTIONS.values() for name, command in section.items()
}
"""every command by its name of one or two words"""


def members(family: str) -> dict[str, Command]:
    """Return the commands of a family by their second words; none where there is no such family."""
    commands: dict[str, Command] = {}
    for name, command in COMMANDS.items():
        first_word, _, member = name.partition(" ")
        if first_word == family and member:
            commands[member] = command
    return commands


def load(name: str) -> tuple[type, object]:
    """Import a command and return its settings dataclass and its function."""
    command = COMMANDS[name]
    module = importlib.import_module(f"jaxmodpo.{command.module}")
    return getattr(module, command.settings), getattr(module, command.function)


def overview() -> str:
    """Return the text of ``jaxmodpo --help``: a line for each command or family, by section."""
    lines: list[str] = []
    for section, commands in SECTIONS.items():
        lines += ["", f"{section}:"]
        about_by_name: dict[str, str] = {}
        for name, command in commands.items():
            family, _, member = name.partition(" ")
            if member:
                about_by_name[family] = f"{FAMILIES[family]}: {', '.join(members(family))}"
            else:
                about_by_name[name] = command.about
        lines += [f"  {name:<12} {about}" for name, about in about_by_name.items()]
    return "\n".join(
        [
            "usage: jaxmodpo COMMAND [--config FILE.yaml] [--setting value …]",
            "",
            "Align a language model to several objectives at once, and measure whether it worked.",
            *lines,
            "",
            "jaxmodpo COMMAND --help lists a command's settings; jaxmodpo --version the version.",
        ]
    )


def overview_of(family: str) -> str:
    """Return the text of ``jaxmodpo FAMILY``: a line for each member."""
    lines = [
        f"  {family} {member:<12} {command.about}" for member, command in members(family).items()
    ]
    head = [f"usage: jaxmodpo {family} {'|'.join(members(family))} [--setting value …]", ""]
    return "\n".join([*head, f"{FAMILIES[family].capitalize()}:", *lines])
