"""Parquet in this library's own schema, and every reader's rows written to it and read back."""

import io
import re

import datasets
import PIL.Image
import pyarrow as pa
import pyarrow.parquet
import pytest

from avalanche_cit.benchmarks.readers import READERS
from avalanche_cit.benchmarks.readers.parquet import read_parquet
from avalanche_cit.errors import UserError

ROW = {"id": "1", "image": "a.png", "instruction": "what?", "target": "cat"}


@pytest.fixture
def read(workspace):
    """Write rows to Parquet and read them back."""
    workspace.add_images("a.png")
    return lambda rows, **options: workspace.read("parquet", {"annotations": rows}, **options).data.to_pylist()


def encoded(colour):
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (3, 2), colour).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_s_rows_come_back_as_they_were(workspace, example, reader):
    given = example(reader)
    workspace.add_images(*given.images)
    rows = workspace.read(reader, given.documents, **given.options)
    file = workspace.root / "rows.parquet"
    rows.to_parquet(file)

    back = read_parquet(
        task="mine",
        images=workspace.images,
        image_roots=[workspace.images],
        annotations=file,
        cache_dir=workspace.root / "back",
    )

    assert back.features == rows.features
    assert back.data.to_pylist() == rows.data.to_pylist()
    assert len(back) > 0


def test_rows_without_an_image_and_with_several_come_back_as_they_were(workspace, read):
    workspace.add_images("b.png")
    images = {"a": {"path": "a.png"}, "b": {"path": "b.png"}, "bytes": {"bytes": encoded("red")}}
    rows = workspace.read(
        "parquet",
        {
            "annotations": [
                {**ROW, "id": "0", "image": None, "more_images": None},
                {**ROW, "id": "1", "image": images["a"], "more_images": [images["bytes"], images["b"]]},
                {**ROW, "id": "2", "image": images["b"], "more_images": []},
            ]
        },
    )
    file = workspace.root / "rows.parquet"
    rows.to_parquet(file)

    back = read_parquet(
        task="mine",
        images=workspace.images,
        image_roots=[workspace.images],
        annotations=file,
        cache_dir=workspace.root / "back",
    ).data.to_pylist()

    assert back == rows.data.to_pylist()
    assert [row["image"] and row["image"]["path"] for row in back] == [
        None,
        str(workspace.images / "a.png"),
        str(workspace.images / "b.png"),
    ]
    assert [row["more_images"] for row in back] == [
        None,
        [{"bytes": encoded("red"), "path": None}, {"bytes": None, "path": str(workspace.images / "b.png")}],
        None,
    ]


def test_absolute_paths_need_their_folder_among_the_image_roots(workspace, read):
    with pytest.raises(
        UserError, match=r"row 0 \(id '1'\): the image '/.*a.png' must be a path below the image folder"
    ):
        read([{**ROW, "image": str(workspace.images / "a.png")}])


@pytest.mark.parametrize("image", ["a.png", {"path": "a.png"}, {"path": "a.png", "bytes": None}])
def test_an_image_may_be_a_path(workspace, read, image):
    assert read([{**ROW, "image": image}])[0]["image"] == {"bytes": None, "path": str(workspace.images / "a.png")}


@pytest.mark.parametrize(
    ("wrap", "path"), [(lambda red: red, None), (lambda red: {"bytes": red, "path": __file__}, __file__)]
)
def test_an_image_may_be_bytes_and_its_path_is_a_name_alone(workspace, wrap, path):
    data = workspace.read("parquet", {"annotations": [{**ROW, "image": wrap(encoded("red"))}]}, images=None)

    assert data[0]["image"].getpixel((0, 0)) == (255, 0, 0)
    assert data.data.column("image")[0].as_py()["path"] == path


def test_images_that_datasets_encodes(workspace):
    features = datasets.Features({name: datasets.Value("string") for name in ROW} | {"image": datasets.Image()})
    rows = {name: [value] for name, value in ROW.items()} | {"image": [PIL.Image.new("RGB", (3, 2), "blue")]}
    file = workspace.root / "encoded.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(file)

    data = read_parquet(task="mine", annotations=file, cache_dir=workspace.root / "cache")

    assert data[0]["image"].getpixel((2, 1)) == (0, 0, 255)


def test_many_rows_with_bytes_keep_their_order(workspace):
    images = {colour: encoded(colour) for colour in ("red", "blue")}
    rows = [{**ROW, "id": str(n), "target": (c := "red" if n % 3 else "blue"), "image": images[c]} for n in range(200)]

    data = workspace.read("parquet", {"annotations": rows}, images=None)

    assert data["id"][:] == [str(n) for n in range(200)]
    assert [row["image"]["bytes"] for row in data.data.to_pylist()] == [images[row["target"]] for row in rows]


def test_a_path_needs_a_folder(read):
    with pytest.raises(
        UserError, match=r"row 0 \(id '1'\): names the image file 'a.png'; give the folder of the files"
    ):
        read([ROW], images=None)


@pytest.mark.parametrize("image", [7, {"path": None, "bytes": None}, {"url": "a.png"}, [b"a"]], ids=repr)
def test_what_is_no_image_is_named(read, image):
    with pytest.raises(UserError, match=r"annotations\.json, row 0 \(id '1'\): the field 'image' must be an image"):
        read([{**ROW, "image": image}])


@pytest.mark.parametrize("column", [name for name in ROW if name != "image"])
def test_a_missing_column_or_value_is_named(read, column):
    without = {name: value for name, value in ROW.items() if name != column}

    with pytest.raises(UserError, match=rf"annotations\.json, row 0.*: the field '{column}' is missing; it must be"):
        read([without])
    with pytest.raises(UserError, match=rf"annotations\.json, row 0.*: the field '{column}' must be .*, not null"):
        read([{**ROW, column: None}])


def test_a_value_of_another_type_is_named(read):
    with pytest.raises(UserError, match=r"the field 'target' must be a text, not a value of the type bytes"):
        read([{**ROW, "target": b"cat"}])


@pytest.mark.parametrize("content", [b"", b"PAR1", b'{"id": 1}', b"PAR1" + b"\0" * 99 + b"PAR1"])
def test_what_is_no_parquet_is_named(workspace, read, content):
    with pytest.raises(UserError, match=r"annotations\.json: cannot be read \("):
        read(content)


def test_a_file_cut_short_is_named(workspace, encode, read):
    content = encode("parquet", [ROW])

    for length in range(0, len(content), 50):
        with pytest.raises(UserError, match="cannot be read"):
            read(content[:length])


def test_a_missing_file_is_named(workspace):
    file = workspace.root / "none.parquet"

    with pytest.raises(UserError, match=re.escape(f"{file}: no such file")):
        read_parquet(task="mine", annotations=file, cache_dir=workspace.root / "cache")


def test_an_empty_table_holds_no_sample(workspace):
    table = pa.table({name: pa.array([], pa.string()) for name in ROW})
    file = workspace.root / "empty.parquet"
    pyarrow.parquet.write_table(table, file)

    with pytest.raises(UserError, match=r"empty\.parquet: holds not one sample"):
        read_parquet(task="mine", annotations=file, cache_dir=workspace.root / "cache")
