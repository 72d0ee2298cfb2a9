"""Turns `config/a.py config/b.py --key=value` into a typed dataclass, whose fields are made by
`knob`. Later wins. Anything unclear stops with one line and a hint."""
import contextlib
import dataclasses
import difflib
import inspect
import re
import runpy
import sys


class UsageError(ValueError):
    """Something the user can put right; the message says how. Shown as one line, where any other
    error shows its traceback."""


BOOLS = {"true": True, "1": True, "false": False, "0": False}


def knob(default, low=None, high=None, one_of=None, resume="same"):
    """A field of a config. Its value lies between `low` and `high`, or is in `one_of`. `resume`
    says whether a resumed run may have another value: "same": no, it would change the result;
    "rounding": yes, it changes last digits; "free": yes, it changes no line of metrics.jsonl."""
    rules = {"low": low, "high": high, "one_of": one_of, "resume": resume}
    return dataclasses.field(default=default, metadata=rules)


def documented(config_class):
    """(group, field, comment) of every knob, from the source: the trailing comment is the
    documentation; it may go on in lines that begin with `#` and three spaces."""
    found = []
    fields = {f.name: f for f in dataclasses.fields(config_class)}
    for owner in reversed(config_class.__mro__[:-1]):  # what is inherited comes first
        group = ""
        for line in inspect.getsource(owner).splitlines():
            if more := re.match(r"    #   +(.+)", line):
                heading, field, comment = found.pop()
                found.append((heading, field, f"{comment} {more[1]}"))
            elif title := re.match(r"    # (.+)", line):
                group = title[1]
            elif line_of_knob := re.match(r"    (\w+): \w+ = knob\(.*?\)  # (.+)", line):
                found.append((group, fields[line_of_knob[1]], line_of_knob[2]))
    return found


def parse_value(config_class, key, value, where):
    """`value` as the type of field `key`: text from the command line is parsed, a value from a
    file must have the type already. UsageError for an unknown key or another type."""
    types = {f.name: f.type for f in dataclasses.fields(config_class)}
    if key not in types:
        near = difflib.get_close_matches(key, types, 1)
        hint = f"did you mean {near[0]!r}?" if near else "--help lists them all"
        raise UsageError(f"{where}: there is no knob {key!r}; {hint}")
    want = types[key]
    if isinstance(value, str) and want is not str and where == "command line":
        with contextlib.suppress(KeyError, ValueError):  # not that type: the error below
            return BOOLS[value.lower()] if want is bool else want(value)
    elif type(value) is want:
        return value
    elif want is float and type(value) is int:
        return float(value)
    hint = {bool: "; write true or false", str: "; write it in quotes"}.get(want, "")
    raise UsageError(f"{where}: {key}={value!r} is no {want.__name__}{hint}")


def check_knobs(cfg):
    """UsageError for a value that its knob does not allow; NaN is outside of all bounds."""
    for field in dataclasses.fields(cfg):
        value = getattr(cfg, field.name)
        low, high, one_of = (field.metadata[rule] for rule in ("low", "high", "one_of"))
        if one_of is not None and value not in one_of:
            names = ", ".join(str(name) for name in one_of if name)
            empty = ", or leave it empty" if "" in one_of else ""
            raise UsageError(f"{field.name}={value!r}: choose one of {names}{empty}")
        if low is not None and high is not None and not low <= value <= high:
            raise UsageError(f"{field.name}={value} must lie between {low:g} and {high:g}")
        if low is not None and not value >= low:
            raise UsageError(f"{field.name}={value} must be at least {low}")


def configure(config_class, argv, usage):
    """The config for `argv` (without the program's name). Prints help, or one line about what is
    wrong, and exits."""
    if "--help" in argv or "-h" in argv:
        print(usage.strip())
        group = None
        for heading, field, comment in documented(config_class):
            if heading != group:
                print(f"\n{heading}")
                group = heading
            setting = f"{field.name}={field.default}"
            if field.metadata["one_of"]:
                comment += f" [{' | '.join(filter(None, field.metadata['one_of']))}]"
            print(f"  --{setting:<32} {field.type.__name__:<6} {comment}")
        sys.exit(0)
    try:
        return parse(config_class, argv)
    except UsageError as error:
        refuse(error)


def refuse(error):
    print(f"error: {error}", file=sys.stderr)
    sys.exit(2)


def parse(config_class, argv):
    """The config for `argv`. UsageError for anything unclear."""
    values = {}
    for arg in argv:
        if not arg.startswith("--"):
            values |= read_config(config_class, arg)
        elif "=" not in arg:
            raise UsageError(f"{arg}: write it as {arg}=value")
        else:
            key, value = arg[2:].split("=", 1)
            values[key] = parse_value(config_class, key, value, "command line")
    return config_class(**values)


def read_config(config_class, path):
    """The knobs that a config file assigns, by name."""
    try:
        assigned = runpy.run_path(path)
    except Exception as error:
        raise UsageError(f"config file {path}: {type(error).__name__}: {error}") from error
    return {key: parse_value(config_class, key, value, path)
            for key, value in assigned.items() if not key.startswith("_")}
