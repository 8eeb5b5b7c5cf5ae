"""Files changed at random: a reader gives rows in the schema, or one `UserError` of one line, and nothing else."""

import pytest
from damage import changed, counts, damaged, fuzz
from hypothesis import strategies as st

from avalanche_cit.benchmarks.instruction_data import FEATURES
from avalanche_cit.benchmarks.readers import READERS
from avalanche_cit.errors import UserError


def check(workspace, reader, documents, options):
    try:
        data = workspace.read(reader, documents, **options)
    except UserError as error:
        message = str(error)
    else:
        message = "read"
        assert data.features == FEATURES
        rows = data.data.to_pylist()
        assert rows
        assert all(row["references"] and row["target"] is not None for row in rows)
        assert len({row["id"] for row in rows}) == len(rows)
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("reader", READERS)
@counts(60, 140)
def test_a_changed_document_is_read_or_refused(make_workspace, example, reader, examples):
    def read(data: st.DataObject) -> None:
        workspace, case = make_workspace(), example(reader)
        workspace.add_images(*case.images)
        argument = data.draw(st.sampled_from(list(case.documents)))
        case.documents[argument] = changed(data, case.documents[argument])

        check(workspace, reader, case.documents, case.options)

    fuzz(read, examples)


@pytest.mark.parametrize("reader", READERS)
@counts(30, 70)
def test_damaged_bytes_are_read_or_refused(make_workspace, example, encode, reader, examples):
    def read(data: st.DataObject) -> None:
        workspace, case = make_workspace(), example(reader)
        workspace.add_images(*case.images)
        argument = data.draw(st.sampled_from(list(case.documents)))
        case.documents[argument] = damaged(data, encode(reader, case.documents[argument]))

        check(workspace, reader, case.documents, case.options)

    fuzz(read, examples)
