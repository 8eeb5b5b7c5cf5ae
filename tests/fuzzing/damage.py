"""What fuzzing tests share: documents and bytes changed at random, and how many examples a tier tries."""

import contextlib
import copy
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avalanche_cit.command_line import run_main

TEXTS = st.text(st.characters(exclude_categories=()), max_size=5)  # half surrogate pairs too
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.just("\ud800")
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=5
)
CHANGES = st.sampled_from(["replace", "delete", "repeat", "other part"])


def counts(default: int, slow: int) -> pytest.MarkDecorator:
    """Make a test run with two numbers of ``examples``: the default tier's, and the slow one's."""
    return pytest.mark.parametrize("examples", [default, pytest.param(slow, marks=pytest.mark.slow)])


def fuzz(check: Callable[[st.DataObject], None], examples: int) -> None:
    """Call a check that draws what it needs ``examples`` times, each time the same in every run of the tests."""
    given(st.data())(
        settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))(check)
    )()


def changed(data: st.DataObject, document: Any) -> Any:
    """Return a document in which one to three parts are replaced, left out, repeated or put elsewhere."""
    document = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 3))):
        places = list(_places(document))
        where = data.draw(st.sampled_from(places))
        if not where:
            continue
        holder, change = _part(document, where[:-1]), data.draw(CHANGES)
        if change == "delete":
            del holder[where[-1]]
        elif change == "repeat" and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[where[-1]]))
        elif change == "other part":
            holder[where[-1]] = copy.deepcopy(_part(document, data.draw(st.sampled_from(places))))
        else:
            holder[where[-1]] = data.draw(VALUES)
    return document


def damaged(data: st.DataObject, content: bytes) -> bytes:
    """Return bytes of which a stretch, maybe all to the end, is replaced by others."""
    start = data.draw(st.integers(0, len(content)))
    end = data.draw(st.integers(start, len(content)))
    return content[:start] + data.draw(st.binary(max_size=4)) + content[end:]


def files_of(folder: Path) -> dict[str, bytes | None]:
    """Return the content of every file below a folder by its path, None for a folder."""
    found = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in found}


def script_line(main: Callable[[], object], arguments: Sequence[str]) -> str:
    """Call a script's main function; returns its one line of error, or nothing where it ended well."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr("sys.argv", ["script.py", *arguments])
        try:
            run_main(main)
            return ""
        except SystemExit as stopped:
            status = stopped.code
    line = err.getvalue()
    assert (status, line[:7], line.count("\n")) == (2, "error: ", 1), line
    return line


def _places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where each part of a document stands, the document itself first."""
    yield where
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from _places(part, (*where, key))


def _part(document: Any, where: tuple[Any, ...]) -> Any:
    for key in where:
        document = document[key]
    return document
