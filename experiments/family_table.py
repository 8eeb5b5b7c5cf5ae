"""Make the table of families and strategies in docs/models.md from the report of the tests that ran them.

pytest tests/models/test_streams.py -p no:xdist --junitxml streams.xml
python experiments/family_table.py streams.xml [--docs FILE]
"""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd

from avalanche_cit.command_line import Parser, run_main
from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.comparison import markdown

DOCS = Path(__file__).parents[1] / "docs" / "models.md"
MARKS = ("<!-- families -->\n", "<!-- /families -->")


def main() -> None:
    """Read the report, and write the table between its marks."""
    parser = Parser(description="The table of families and strategies, from the report of the tests that ran them.")
    parser.add_argument("report", type=Path, help="what pytest --junitxml wrote")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the file with the table (default: docs/models.md)")
    options = parser.parse_args()
    try:
        report = ElementTree.parse(options.report)
    except (OSError, ElementTree.ParseError) as error:
        raise UserError(f"{options.report}: cannot be read ({error}); give what pytest --junitxml wrote") from error
    text = options.docs.read_text(encoding="utf-8")
    before, _, rest = text.partition(MARKS[0])
    options.docs.write_text(
        before + MARKS[0] + table(report) + MARKS[1] + rest.partition(MARKS[1])[2], encoding="utf-8"
    )
    print(f"written: {options.docs}")


def table(report: ElementTree.ElementTree) -> str:
    """Return a Markdown table: ``ok`` where the test passed, ``fails`` where not, empty where it was not run.

    Raises:
        UserError: The report holds no such tests.
    """
    cells: dict[str, dict[str, str]] = {}
    for case in report.iter("testcase"):
        found = re.fullmatch(r"test_a_stream_of_two_tasks\[(\w+)-(seqft|replay|ewc_tir|eproj)\]", str(case.get("name")))
        if found is not None:
            family, strategy = found.groups()
            skipped = case.find("skipped") is not None
            failed = case.find("failure") is not None or case.find("error") is not None
            cells.setdefault(family, {})[strategy] = "" if skipped else "fails" if failed else "ok"
    if not cells:
        raise UserError("the report holds no tests of tests/models/test_streams.py; run them with --junitxml")
    return markdown(pd.DataFrame.from_dict(cells, orient="index").fillna(""))


if __name__ == "__main__":
    run_main(main)
