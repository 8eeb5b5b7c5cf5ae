import pytest

from avalanche_cit.command_line import ConfigFile, Parser, add_image_root, run_main
from avalanche_cit.errors import UserError


def parser() -> Parser:
    made = Parser(prog="train")
    made.add_argument("--config", action=ConfigFile)
    made.add_argument("--epochs", type=int, default=1)
    made.add_argument("--batch_size", type=int, default=8)
    made.add_argument("--seeds", type=int, nargs="+", default=[0])
    made.add_argument("--output", type=str, default="runs")
    made.add_argument("--optimizer.rate", type=float, default=0.1)
    return made


def error_of(capsys, arguments: list[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        parser().parse_args(arguments)
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
    return printed.err.strip()


def test_right_options_are_parsed():
    options = parser().parse_args(["--epochs=3", "--optimizer.rate", "0.5"])
    assert (options.epochs, options.output, options.optimizer.rate) == (3, "runs", 0.5)


def test_words_of_an_option_are_joined_either_way():
    assert parser().parse_args(["--batch-size", "4"]).batch_size == 4
    assert parser().parse_args(["--batch_size=4"]).batch_size == 4


def test_an_unknown_option_is_answered_with_the_nearest(capsys):
    assert error_of(capsys, ["--epcohs=3"]) == "error: unknown option '--epcohs': did you mean '--epochs'? See --help"
    assert (
        error_of(capsys, ["--epcohs", "3"]) == "error: unknown option '--epcohs': did you mean '--epochs'? See --help"
    )
    assert "did you mean '--optimizer.rate'?" in error_of(capsys, ["--optimiser.rate=3"])
    assert error_of(capsys, ["--zzz"]) == "error: unknown option '--zzz': See --help"


def test_an_unknown_option_in_a_file_too(capsys, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("epoch: 3\n")
    assert "unknown option '--epoch': did you mean '--epochs'?" in error_of(capsys, ["--config", str(config)])


def test_options_are_not_abbreviated(capsys):
    assert "did you mean '--output'?" in error_of(capsys, ["--outp=x"])


def test_a_wrong_value_names_its_option(capsys, tmp_path):
    assert error_of(capsys, ["--epochs=many"]).startswith("error: option 'epochs': ")
    assert "many" in error_of(capsys, ["--epochs=many"])
    assert "nowhere.yaml" in error_of(capsys, ["--config", str(tmp_path / "nowhere.yaml")])


def test_run_main_turns_a_users_mistake_into_one_line(capsys):
    def main():
        raise UserError("data.json, record 3:\n no image")

    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: data.json, record 3: no image\n"


def test_run_main_after_an_interruption(capsys):
    def main():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    assert stopped.value.code == 130
    assert "Traceback" not in capsys.readouterr().err


def test_run_main_hides_no_defect():
    def main():
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        run_main(main)


def test_run_main_returns_when_all_is_well(capsys):
    run_main(lambda: print("done"))
    assert capsys.readouterr().out == "done\n"


def test_image_roots_add_up(tmp_path, capsys):
    made = Parser()
    add_image_root(made)
    made.add_argument("--config", action=ConfigFile)
    assert made.parse_args(["--image-root", "a", "--image_root=b"]).image_root == ["a", "b"]
    assert made.parse_args([]).image_root == []
    config = tmp_path / "config.yaml"
    config.write_text("image_root: [c, d]\n")
    assert made.parse_args(["--config", str(config)]).image_root == ["c", "d"]
    config.write_text("image_root: c\n")
    with pytest.raises(UserError, match=r"config.yaml: 'image_root' takes a list, such as \[c\]$"):
        made.parse_args(["--config", str(config)])


def test_a_list_in_a_file_must_be_a_list(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("seeds: 3\n")
    with pytest.raises(UserError, match=r"config.yaml: 'seeds' takes a list, such as \[3\]$"):
        parser().parse_args(["--config", str(config)])
    config.write_text("seeds: [3, 4]\n")
    assert parser().parse_args(["--config", str(config)]).seeds == [3, 4]


def test_an_option_without_a_value_in_a_file(tmp_path):
    made = Parser()
    made.add_argument("--config", action=ConfigFile)
    made.add_argument("--model", type=str, default="tiny-base")
    made.add_argument("--lr", type=float | None)
    config = tmp_path / "config.yaml"
    config.write_text("model:\n")
    with pytest.raises(UserError, match=r"config.yaml: 'model' has no value: give one, or leave it away$"):
        made.parse_args(["--config", str(config)])
    config.write_text("lr: null\n")
    assert made.parse_args(["--config", str(config)]).lr is None
