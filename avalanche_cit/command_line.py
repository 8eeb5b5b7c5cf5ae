"""What every script's command line shares: an error is one line on standard error, never a traceback."""

from __future__ import annotations

import difflib
import re
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse

from avalanche_cit.errors import Interrupted, UserError
from avalanche_cit.evaluation.checked_json import read_yaml

_UNKNOWN_OPTION = re.compile(r"unrecognized arguments: --([^\s=]+)|Option '([^']+)' is not accepted")


class Parser(jsonargparse.ArgumentParser):  # type: ignore[misc]
    """jsonargparse's parser, whose errors are one line, with the nearest option named for one that does not exist.

    An error prints ``error: ...`` on standard error and exits with status 2. Options are never abbreviated.

    Example:
        >>> parser = Parser()
        >>> parser.add_argument("--epochs", type=int, default=1)
        >>> parser.parse_args(["--epoch=3"])
        error: unknown option '--epoch': did you mean '--epochs'? See --help
    """

    def __init__(self, *args: Any, allow_abbrev: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, allow_abbrev=allow_abbrev, **kwargs)

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **kwargs: Any) -> Any:
        """Parse the command line; ``--two-words`` and ``--two_words`` are the same option."""
        given = sys.argv[1:] if args is None else args
        return super().parse_args([_underscored(word) for word in given], *rest, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message as one line and exit with status 2."""
        if not self.exit_on_error:  # a parser that jsonargparse makes for itself, and whose failure it handles
            super().error(message, ex)
        line = re.sub(r'^Parser key "([^"]+)":', r"option '\1':", _one_line(message))
        unknown = _UNKNOWN_OPTION.search(line)
        if unknown:
            name = "--" + (unknown[1] or unknown[2])
            options = [option for option in self._option_string_actions if option.startswith("--")]
            close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
            hint = f"did you mean '{close[0]}'? " if close else ""
            line = f"unknown option '{name}': {hint}See --help"
        print(f"error: {line}", file=sys.stderr)
        sys.exit(2)


class ConfigFile(jsonargparse.ActionConfigFile):  # type: ignore[misc]
    """``--config FILE``, a YAML file of options. An option that takes several values must stand there as a list.

    Example:
        >>> parser.add_argument("--config", action=ConfigFile, help="YAML file with any of these options")
    """

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Read the file into the options given so far."""
        try:
            content = read_yaml(Path(values))
        except UserError as error:
            parser.error(str(error))
        if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
            parser.error(f"{values}: must hold options, one 'name: value' a line")
        if self.dest in content:
            parser.error(f"{values}: '{self.dest}' stands in it, but a file of options cannot name another one")
        for name, value in content.items():
            action = parser._option_string_actions.get(f"--{name}")
            if value is None and action is not None and action.default is not None:
                raise UserError(f"{values}: '{name}' has no value: give one, or leave it away")
            takes_list = action is not None and (action.nargs in ("+", "*") or isinstance(action.default, list))
            if takes_list and not isinstance(value, list):
                raise UserError(f"{values}: '{name}' takes a list, such as [{value}]")
        super().__call__(parser, cfg, values, option_string)


def add_image_root(parser: Parser) -> None:
    """Add ``--image_root FOLDER``, which may be given more than once; a list of texts.

    Example:
        >>> add_image_root(parser)
        >>> parser.parse_args(["--image-root", "a", "--image-root", "b"]).image_root
        ['a', 'b']
    """
    meaning = "further folder that image paths may lead to; may be given more than once"
    parser.add_argument("--image_root", action="append", default=[], metavar="FOLDER", help=meaning)


def run_main(main: Callable[[], object]) -> None:
    """Call a script's main function and turn a user's mistake into one line.

    Exits with status 2 after a `UserError`, printed as ``error: ...`` on standard error, and after a signal with 130
    (Ctrl-C) or 143 (SIGTERM) and the line that resumes. Any other exception is a defect and keeps its traceback.

    Example:
        >>> if __name__ == "__main__":
        ...     run_main(main)
    """
    try:
        main()
    except UserError as error:
        print(f"error: {_one_line(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interrupt:
        number = interrupt.signal if isinstance(interrupt, Interrupted) else signal.SIGINT
        print(f"interrupted; what is saved is kept, and this goes on with it: {this_command()}", file=sys.stderr)
        sys.exit(128 + number)


def this_command() -> str:
    """Return what was typed, so that it can be typed again."""
    return shlex.join([Path(sys.executable).name, *sys.argv])


def _underscored(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
