"""Turns `config/a.py config/b.py --key=value` into a typed dataclass. Later wins; a preset comes before all of them. Anything unclear stops
with one line and a hint."""
import contextlib
import dataclasses
import difflib
import inspect
import re
import runpy
import sys


class UsageError(ValueError):
    """Something the user can put right; the message says how. Shown as one line, where any other error shows its traceback."""


BOOLS = {"true": True, "1": True, "false": False, "0": False}


def knobs(config_class):
    """(group, name, type, default, comment) of every field, from the source: the trailing comment is the documentation."""
    group, found = "", []
    fields = {f.name: f for f in dataclasses.fields(config_class)}
    for line in inspect.getsource(config_class).splitlines():
        if heading := re.match(r"    # (.+)", line):
            group = heading[1]
        elif knob := re.match(r"    (\w+): \w+ = .*?  # (.+)", line):
            found.append((group, knob[1], fields[knob[1]].type, fields[knob[1]].default, knob[2]))
    return found


def typed(config_class, key, value, where):
    """`value` as the type of field `key`: text from the command line is parsed, a value from a file must have the type already."""
    types = {f.name: f.type for f in dataclasses.fields(config_class)}
    if key not in types:
        near = difflib.get_close_matches(key, types, 1)
        raise UsageError(f"{where}: there is no knob {key!r}" + (f"; did you mean {near[0]!r}?" if near else "; --help lists them all"))
    want = types[key]
    if isinstance(value, str) and want is not str and where == "command line":
        with contextlib.suppress(KeyError, ValueError):  # not that type: the error below
            return BOOLS[value.lower()] if want is bool else want(value)
    elif type(value) is want:
        return value
    elif want is float and type(value) is int:
        return float(value)
    raise UsageError(f"{where}: {key}={value!r} is no {want.__name__}" + ("; write true or false" if want is bool else ""))


def check_knobs(cfg, choices, at_least, within):
    """UsageError for a knob outside `choices` (name -> allowed), below `at_least` or not `within` (name -> low, high); NaN is outside."""
    for key, allowed in choices.items():
        if getattr(cfg, key) not in allowed:
            raise UsageError(f"{key}={getattr(cfg, key)!r}: choose one of {', '.join(map(str, filter(None, allowed)))}" + (", or leave it empty" if "" in allowed else ""))
    for key, low in at_least.items():
        if not getattr(cfg, key) >= low:
            raise UsageError(f"{key}={getattr(cfg, key)} must be at least {low}")
    for key, (low, high) in within.items():
        if not low <= getattr(cfg, key) <= high:
            raise UsageError(f"{key}={getattr(cfg, key)} must lie between {low:g} and {high:g}")


def configure(config_class, argv, usage):
    """The config for `argv` (without the program's name). Prints help, or one line about what is wrong, and exits."""
    if "--help" in argv or "-h" in argv:
        print(usage.strip())
        group = None
        for heading, name, kind, default, comment in knobs(config_class):
            if heading != group:
                print(f"\n{heading}")
                group = heading
            print(f"  --{name + '=' + str(default):<32} {kind.__name__:<6} {comment}")
        sys.exit(0)
    try:
        return parse(config_class, argv)
    except UsageError as error:
        refuse(error)


def refuse(error):
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def parse(config_class, argv):
    values = {}
    for arg in argv:
        if not arg.startswith("--"):
            try:
                assigned = runpy.run_path(arg)
            except Exception as error:
                raise UsageError(f"config file {arg}: {type(error).__name__}: {error}") from error
            assigned = {key: value for key, value in assigned.items() if not key.startswith("_")}
            values |= {key: typed(config_class, key, value, arg) for key, value in assigned.items()}
        elif "=" not in arg:
            raise UsageError(f"{arg}: write it as {arg}=value")
        else:
            key, value = arg[2:].split("=", 1)
            values[key] = typed(config_class, key, value, "command line")
    preset = getattr(config_class, "presets", {}).get(values.get("preset"), {})  # an unknown preset: the dataclass's own check
    return config_class(**preset | values)
