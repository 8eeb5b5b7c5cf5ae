"""Say whether the numbers of run directories are those of the answers that are stored in them.

    python experiments/verify_run.py RUN [RUN ...]

Every digest, score and summary is computed anew (`avalanche_cit.evaluation.verify`). Printed is a line per run that
agrees, or per problem, which names the file, the record and both numbers; and a note per file that an older version
wrote without digests. Exit status: 0 all agree, 1 one does not, 2 one cannot be read.
"""

from __future__ import annotations

import sys
from pathlib import Path

from avalanche_cit.command_line import Parser, run_main
from avalanche_cit.evaluation.verify import verify_run, without_digests


def main() -> None:
    """Verify the runs and print what was found."""
    parser = Parser(description="Compute every number of run directories anew from the stored answers.")
    parser.add_argument("runs", nargs="+", type=str, help="run directories", metavar="RUN")
    options = parser.parse_args()

    agree = True
    for run in map(Path, options.runs):
        problems = verify_run(run)
        agree = agree and not problems
        for problem in problems or ["agrees"]:
            print(f"{run}: {problem}")
        for note in without_digests(run):
            print(f"{run}: note: {note}")
    if not agree:
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)
