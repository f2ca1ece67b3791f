"""Python reads this file first where its folder is in PYTHONPATH: a machine without torch, as our
users have.

Torch is here for tests that compare with it. A command that tests start as a process of its own
must do without, and transformers would otherwise import it, which takes longer than most of these
commands.
"""

from importlib.machinery import PathFinder

_find = PathFinder.find_spec


def _find_other(name, path=None, target=None):
    return None if name == "torch" else _find(name, path, target)


PathFinder.find_spec = staticmethod(_find_other)  # type: ignore[method-assign, assignment]
