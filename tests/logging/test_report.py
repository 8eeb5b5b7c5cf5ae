"""report.html: what it says, and that it is safe and stands alone."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from avalanche_cit.errors import UserError
from avalanche_cit.evaluation.matrix import CONVENTIONS
from avalanche_cit.logging.report import NAMES, write_report

VOID = {"meta", "img", "line", "polyline", "wbr", "br"}
PROVENANCE = {
    "git_commit": "abc1234",
    "packages": {"torch": "2.9.0"},
    "samples_seen": 30000,
    "wall_time_s": 74.3,
}
JOINT = {"kind": "joint", "strategy": "jointft", "rows": ["initial", "joint"], "other_scores": {}}
DIRECT = {
    "kind": "independent",
    "strategy": "directft",
    "other_scores": {},
    "scores": [[10.25, 20], [62, None], [None, 75]],
}


class Page(HTMLParser):
    """The parts of a page that the tests look at, and a check that its tags are balanced."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.html = file.read_text()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(self.html)
        self.close()
        assert self._open == []
        self.text = " ".join(self.text.split())
        self.tables = [[[" ".join(cell.split()) for cell in row] for row in table] for table in self.tables]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "td" in self._open or "th" in self._open:
            self.tables[-1][-1][-1] += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def report(*runs: Path) -> Page:
    output = runs[0].parent / "out" / "report.html"
    write_report(runs, output)
    return Page(output)


def prediction(name: str, text: str, score: float | None, **more: object) -> dict[str, object]:
    return {
        "id": name,
        "instruction": "what is it?",
        "prediction": text,
        "references": ["a cat"],
        "score": score,
    } | more


def test_every_number_of_a_run(make_run) -> None:
    page = report(make_run(provenance=PROVENANCE))
    overview, matrix, conventions, other = page.tables
    assert overview[0][2:6] == ["average accuracy", "MFT", "forgetting (Chaudhry)", "BWT (GEM)"]
    assert overview[2] == ["zero-shot the model before any tuning", "3", "15.1", "–", "–", "–", "0", "–"]
    assert overview[3] == ["seqft", "3", "52.9", "65.6", "25.5", "-25.5", "30,000", "1 min 14 s"]
    assert matrix == [
        ["", "caption cider_x10", "vqa vqa_accuracy"],
        ["initial (zero-shot)", "10.2", "20.0"],
        ["after caption", "60.5", "15.0"],
        ["after vqa", "35.0", "70.8"],
    ]
    assert other[3] == ["after vqa", "44.4", "77.7"]
    assert len(conventions) == 1 + len(CONVENTIONS)
    by_name = {row[0]: row[1:] for row in conventions[1:]}
    assert by_name["BWT (CoIN)"] == ["-12.8", *(CONVENTIONS["bwt_coin"][i] for i in (0, 2, 1))]
    assert by_name["intransigence"][0] == "–"
    for part in ("abc1234", "packages.torch", "2.9.0", "epochs: 2", "learned 60.5, now 35.0"):
        assert part in page.text


def test_every_convention_has_a_printed_name() -> None:
    assert NAMES.keys() == CONVENTIONS.keys()


def test_framed_cells_are_the_tasks_just_trained(make_run) -> None:
    cells = [a for a in report(make_run(other_scores={})).attributes("td") if "--v" in (a.get("style") or "")]
    assert ["own" in str(a["class"]) for a in cells] == [False, False, True, False, False, True]
    assert [a["style"] for a in cells][2] == "--v: 0.605"


def test_what_a_model_says_cannot_become_markup(make_run) -> None:
    evil = '<script>alert(1)</script><img src=x onerror="alert(2)">'
    page = report(
        make_run(
            "altered",
            strategy=evil,
            config=f"name: '{evil}'\n",
            provenance={evil: evil},
            predictions={("initial", "vqa"): [prediction(evil, evil, 0, instruction=evil, references=[evil])]},
        )
    )
    assert "<script" not in page.html
    assert page.html.count("&lt;script&gt;alert(1)") >= 8
    assert not page.attributes("script")
    assert not page.attributes("img")
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on")]


def test_nothing_is_loaded_from_anywhere(make_run) -> None:
    picture = Image.new("RGB", (8, 8), "red")
    run = make_run(
        "altered",
        provenance=PROVENANCE,
        predictions={("initial", "vqa"): [prediction("1", "a cat", 100)]},
        pictures={"vqa/1.png": picture},
    )
    (run / "metrics.jsonl").write_text(
        "".join(
            f'{{"step": {i}, "task": "vqa", "phase": "train", "name": "penalty", "value": {i}}}\n' for i in range(3)
        )
    )
    page = report(run)
    assert not re.search(r"https?:|url\(|@import|//", page.html.replace("base64,", "").split("<body>")[0])
    assert "http:" not in page.html
    assert "https:" not in page.html
    assert {str(a["src"])[:22] for a in page.attributes("img")} == {"data:image/png;base64,"}
    assert all(str(a["href"]).startswith("#") for a in page.attributes("a"))
    assert not page.attributes("link")
    policies = [a["content"] for a in page.attributes("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    assert "penalty" in page.text


def test_answers_per_stage(make_run) -> None:
    kept, lost = prediction("kept", "a cat", 100), prediction("l/ost", "a cat", 100)
    run = make_run(
        predictions={
            ("initial", "vqa"): [prediction("kept", "a dog", 0), prediction("l/ost", "a dog", 30)],
            ("caption", "vqa"): [kept, lost],
            ("vqa", "vqa"): [kept, prediction("l/ost", "", 0)],
        },
        pictures={
            "vqa/l_ost.png": Image.new("RGB", (900, 450), (200, 30, 40)),
            "vqa/kept.png": Image.new("L", (64, 64)),
        },
    )
    page = report(run)
    lost_table, kept_table = page.tables[2:4]
    assert lost_table[1:] == [
        ["initial", "a dog", "~ partly, 30"],
        ["after caption", "a cat", "✓ right, 100"],
        ["after vqa", "(empty)", "✗ wrong, 0"],
    ]
    assert kept_table[3] == ["after vqa", "a cat", "✓ right, 100"]
    assert "vqa 1 of 2 forgotten, 1 learned" in page.text
    verdicts = [str(a.get("class")) for a in page.attributes("tr") if a.get("class")]
    assert verdicts[-6:] == ["partly", "right", "wrong own", "wrong", "right", "right own"]
    data = base64.b64decode(str(page.attributes("img")[0]["src"]).split(",")[1])
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.size == (224, 112)
        assert picture.getpixel((5, 5)) == (200, 30, 40)


def test_examples_without_pictures_are_shown_and_pictured_ones_are_preferred(make_run) -> None:
    lines = [prediction(str(i), f"answer{i}", 0) for i in range(20)]
    page = report(make_run("without", predictions={("initial", "vqa"): lines}))
    assert not page.attributes("img")
    assert "answer5" in page.text
    assert "answer6" not in page.text
    pictured = make_run(
        "with", predictions={("initial", "vqa"): lines}, pictures={"vqa/17.png": Image.new("RGB", (64, 64))}
    )
    page = report(pictured)
    assert "answer17" in page.text
    assert "answer5" not in page.text


def test_cells_not_evaluated(make_run) -> None:
    page = report(make_run(scores=[[10, None], [None, 15.0], [35.0, 70.0]], other_scores={}))
    assert page.tables[1][1] == ["initial (zero-shot)", "10.0", "·not evaluated"]
    assert [row[0] for row in page.tables[0]][2:] == ["seqft"]  # no zero-shot line without a whole initial row
    assert page.tables[0][2][2:6] == ["52.5", "–", "–", "–"]


def test_reference_runs_stand_first_and_give_intransigence(make_run) -> None:
    method = make_run("a", provenance=PROVENANCE)
    joint = make_run("b", config="strategy: jointft\nepochs: 2\n", **JOINT, scores=[[10.25, 20], [64, 72]])
    direct = make_run("c", config="strategy: directft\nepochs: 2\n", **DIRECT)
    page = report(method, joint, direct)
    overview, matrix = page.tables[:2]
    assert [row[:7] for row in overview[2:]] == [
        ["zero-shot the model before any tuning", "3", "15.1", "–", "–", "–", "–"],
        ["directft each task alone", "3", "–", "68.5", "–", "–", "–"],
        ["jointft all tasks at once", "3", "68.0", "–", "–", "–", "–"],
        ["seqft", "3", "52.9", "65.6", "25.5", "-25.5", "2.9"],
    ]
    assert matrix[-1] == ["DirectFT (each alone)", "62.0", "75.0"]
    percent = {row[0]: row[2] for row in page.tables[2][1:]}
    assert percent["average accuracy"] == "75.4"  # (35 / 62 + 70.75 / 75) / 2
    assert [a["href"] for a in page.attributes("a")] == ["#main", "#run-3", "#run-2", "#run-1"]
    assert {"run-1", "run-2", "run-3"} <= {a["id"] for a in page.attributes("section") if "id" in a}


def test_superficial_forgetting_stands_beside_forgetting(make_run) -> None:
    forms = {"vqa_accuracy_tolerant": [[20.0, None], [60.5, None], [55.0, None]]}
    method = make_run("a", scores_by=["vqa_accuracy"] * 2, other_scores=forms)
    page = report(
        method, make_run("b", strategy="ewc"), make_run("c", config="strategy: directft\nepochs: 2\n", **DIRECT)
    )
    overview = page.tables[0]
    assert overview[0][5:8] == ["BWT (GEM)", "superficial forgetting", "intransigence"]
    assert [row[6:8] for row in overview[2:]] == [["–", "–"], ["–", "–"], ["20.0", "2.9"], ["–", "2.9"]]
    assert "superficial forgetting 20.0" in page.text  # 60.5 - 35 less 60.5 - 55
    numbers = [row for table in page.tables for row in table if row and row[0] == "superficial forgetting"]
    assert [row[1:3] for row in numbers] == [["20.0", "–"]]
    assert "superficial" not in report(make_run("d")).text


def test_directft_with_other_options_is_no_reference(make_run) -> None:
    direct = make_run("c", config="strategy: directft\nepochs: 9\n", **DIRECT)
    page = report(make_run(), direct)
    assert "intransigence" not in page.tables[0][0]
    assert "they differ in epochs" in page.text


def test_runs_of_other_starts_stand_apart_and_seeds_share_the_zero_shot_line(make_run) -> None:
    page = report(make_run("a"), make_run("b", seed=4), make_run("c", model="tiny-instruct"))
    names = [row[0] for row in page.tables[0][1:]]
    assert names == [
        "two_tasks, from tiny-base",
        "zero-shot the model before any tuning",
        "seqft",
        "seqft",
        "two_tasks, from tiny-instruct",
        "zero-shot the model before any tuning",
        "seqft",
    ]
    assert page.tables[0][2][1] == "3, 4"


def test_task0_columns_are_marked_and_enter_no_average(make_run) -> None:
    page = report(
        make_run(
            tasks=["okvqa", "caption", "vqa"],
            task0=["okvqa"],
            scores_by=["vqa_accuracy", "cider_x10", "vqa_accuracy"],
            scores=[[55.0, 10.25, 20.0], [50.0, 60.5, 15.0], [45.5, 35.0, 70.75]],
            other_scores={},
        )
    )
    assert page.tables[1][0] == ["", "okvqa task 0 vqa_accuracy", "caption cider_x10", "vqa vqa_accuracy"]
    assert page.tables[0][3][2] == "52.9"
    assert sum("edge" in str(a.get("class")) for a in page.attributes("td")) == 3
    assert "task 0, average at the end 45.5" in page.text
    assert "task 0, forgetting 9.5" in page.text


def test_an_unfinished_run(make_run) -> None:
    page = report(make_run(rows=["initial"], scores=[[1.0, 2.0]], other_scores={}, complete=False))
    assert "unfinished, 1 rows so far" in page.text
    assert page.tables[1][1:] == [["initial (zero-shot)", "1.0", "2.0"]]


def test_mistakes_name_the_file(make_run, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one run directory"):
        write_report([], tmp_path / "report.html")
    with pytest.raises(UserError, match=r"nowhere: no matrix\.json"):
        write_report([tmp_path / "nowhere"], tmp_path / "report.html")
    run = make_run()
    (run / "provenance.json").write_text("[]")
    with pytest.raises(UserError, match=r"provenance\.json: not a JSON object"):
        write_report([run], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
