"""From a settings dataclass to flags, YAML keys and ``--help``, and from what a user gives back to
settings::

    @dataclass(frozen=True)
    class Greeting:
        name: str

    parse(Greeting, ["--name", "Ada"], "greet").name   # of jaxmodpo.flags.parse

``parse`` puts files and flags together, ``words`` turns a file's values into the words of flags,
``parser`` lets tyro read them, ``names`` suggests the setting that a wrong one stands for,
``paths`` refuses paths that cannot be meant, and ``help_groups``, ``help_text`` and ``field_texts``
make the help.
"""
