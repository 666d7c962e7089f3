"""``minialex plan``: devices by name, rates from a file, tables, JSON, a picture, and what is said of wrong input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from minialex.cli import app as cli
from minialex.cli import plan as planning
from minialex.errors import ConfigurationError
from minialex.figures.plan import tables
from minialex.recipe.toml import load
from minialex.speed.rates import KNOWN, LINKS, Rates, link, read

MEASURED = {
    "rates": {
        "cpu": {"name": "a processor", "matrix": {"float32": 2e11}, "copy": 3e10},
        "cuda:0": {"name": "a card", "matrix": {"float32": 5e13, "bfloat16": 5e14}, "copy": 2e12, "link": 2e10},
        "cuda:1": {"name": "a card", "matrix": {"float32": 5e13, "bfloat16": 5e14}, "copy": 2e12, "link": 2e10},
    }
}


@pytest.fixture
def rates(tmp_path: Path) -> Path:
    path = tmp_path / "rates.json"
    path.write_text(json.dumps(MEASURED), encoding="utf-8")
    return path


def plan(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(["plan", *arguments]) == 0
    return capsys.readouterr().out


def error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.run(["plan", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    return said.err


def test_json_of_two_cards(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(plan(capsys, "--devices", "h200,h200", "--batch-size", "128,1024", "--json"))
    assert [(s["precision"], s["batch_size"]) for s in found["steps"]] == [
        (p, n) for p in ("float32", "tf32", "bfloat16") for n in (128, 1024)
    ]
    assert [e["values"] for e in found["exchanged_values"]] == [21_632, 4_608, 2_048, 2_048]
    assert round(found["crossover_batch"]) == 1_005
    small = next(s for s in found["steps"] if (s["precision"], s["batch_size"]) == ("bfloat16", 128))
    assert small["exchanged_bytes"] == 2 * 2 * 128 * 30_336
    assert small["averaged_gradients"]["exchanged_bytes"] == 2 * 60_965_224
    assert small["training_seconds"] == pytest.approx(90 * 1_281_167 / small["images_per_second"])
    assert small["layers"][0]["layer"] == "conv1"


def test_tables_of_one_card(capsys: pytest.CaptureFixture[str]) -> None:
    said = plan(capsys, "--devices", "h200", "--batch-size", "1024", "--precision", "bfloat16")
    for text in ("6.52 ms", "157,108", "12.2 min", "1.75 ms", "measured on one H200", "not a measurement"):
        assert text in said
    assert "Averaging" not in said


def test_memory_of_one_card(capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> str:
        return " ".join(plan(capsys, *arguments).split())

    assert "too little: take a smaller --batch-size" in said("--devices", "gtx580", "--batch-size", "512")
    small = said("--devices", "rtx3060", "--batch-size", "128,16")
    assert "a step of 16 images" in small
    assert "weights, momentum and gradients 731.6 MB" in small
    assert "RTX 3060 has 12.9 GB." in small
    assert "Memory of a step" not in said("--devices", "h200,h200")


def test_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    said = plan(capsys, "--devices", "h200,h200", "--precision", "bfloat16", "--markdown")
    assert "| bfloat16 | 128 | 561 µs | 34.5 µs | 596 µs | 214,888 |" in said
    assert "1,005 images" in said


def test_rates_from_a_report(capsys: pytest.CaptureFixture[str], rates: Path) -> None:
    whole = json.loads(plan(capsys, "--rates", str(rates), "--devices", "0,1", "--json"))
    assert whole["placement"] == [0, 1]
    assert {s["precision"] for s in whole["steps"]} == {"float32", "bfloat16"}
    assert whole["steps"][0]["exchanging_seconds"] == pytest.approx(2 * 30_336 * 4 * 128 / 2e10)
    same = json.loads(plan(capsys, "--rates", str(rates), "--devices", "0,0", "--json"))
    assert same["placement"] == [0, 0]
    assert same["exchanged_values"] == []
    default = json.loads(plan(capsys, "--rates", str(rates), "--json"))
    assert default["devices"] == ["cuda:0"]
    cpu = json.loads(plan(capsys, "--rates", str(rates), "--devices", "cpu", "--json"))
    assert cpu["rates"][0]["name"] == "a processor"


def test_the_processor_is_measured_if_nothing_is_given(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minialex.doctor import processor

    monkeypatch.setattr(processor, "measure", lambda: Rates("mine", {"float32": 1e11}, 1e10))
    found = json.loads(plan(capsys, "--json"))
    assert found["rates"][0]["name"] == "mine"
    assert found["devices"] == ["cpu"]


def test_cards_of_this_machine_are_measured_if_they_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from minialex.doctor import devices

    card = Rates("a card", {"float32": 5e13}, 2e12, 2e10)
    monkeypatch.setattr(devices, "cards", lambda: {"cuda:0": card, "cuda:1": card})
    found = json.loads(plan(capsys, "--devices", "0,1", "--json"))
    assert found["rates"][0]["name"] == "a card"
    assert found["placement"] == [0, 1]
    assert "no rates for device '2'; known are" in error(capsys, "--devices", "2")


def test_cards_that_are_not_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from minialex_cuda.diagnose import driver

    def none() -> None:
        raise driver.DriverError("no NVIDIA driver", "get one")

    monkeypatch.setattr(driver, "load", none)
    assert cli.run(["plan", "--devices", "cuda:0"]) == 6
    assert capsys.readouterr().err == "error: driver: no NVIDIA driver; get one\n"


def test_recipe_fields(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(
        plan(capsys, "--devices", "h200", "--epochs", "1", "--images", "1000", "--columns", "1", "--json")
    )
    assert (found["columns"], found["epochs"], found["images"]) == (1, 1, 1000)
    small = json.loads(plan(capsys, "--devices", "h200,h200", "--recipe", "small", "--json"))
    assert small["network"] == "alexnet_small"
    assert len(small["exchanged_values"]) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--devices", "h20"], "no rates for device 'h20'; known are .* Did you mean 'h200'?"),
        (["--devices", "h200,h200,h200"], "names 3 devices for 2 columns; give one or 2"),
        (["--devices", "x,cpux"], "no rates for device 'x'"),
        (["--devices", "h200", "--batch-size", "0"], "--batch-size takes whole numbers of at least 1"),
        (["--devices", "h200", "--batch-size", "12,x"], "got '12,x'"),
        (["--devices", "h200", "--precision", "bf16"], "no precision 'bf16'.* Did you mean 'bfloat16'?"),
        (["--devices", "gtx580", "--precision", "tf32"], "GTX 580 has no rate for precision 'tf32'"),
        (["--devices", "h200,h200", "--link", "usb"], "--link takes nvlink4.* got 'usb'"),
        (["--devices", "h200,h200", "--link", "-1"], "got '-1'"),
        (["--devices", "h200", "--json", "--markdown"], "--json or --markdown, not both"),
        (["--devices", "h200", "--nonsense", "1"], "no option or recipe field '--nonsense'"),
    ],
)
def test_wrong_input(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    import re

    assert re.search(said, error(capsys, *arguments))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rates": {}}'])
def test_files_that_are_no_reports(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rates.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"rates\.json"):
        read(path)


@pytest.mark.parametrize(
    "rates",
    [
        "1",
        '{"matrix": {"float32": 1}}',
        '{"matrix": {"float32": 0}, "copy": 1}',
        '{"matrix": {"fp8": 1}, "copy": 1}',
        '{"matrix": {"float32": true}, "copy": 1}',
        '{"matrix": {}, "copy": NaN}',
        '{"matrix": {}, "copy": 1, "more": 1}',
        '{"matrix": {}, "copy": 1, "name": 1}',
        '{"matrix": {}, "copy": 1, "link": -1}',
    ],
)
def test_damaged_reports(tmp_path: Path, rates: str) -> None:
    path = tmp_path / "rates.json"
    path.write_text(f'{{"rates": {{"cpu": {rates}}}}}', encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"rates\.json: the rates of 'cpu' are damaged"):
        read(path)


def test_a_report_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read rates from"):
        read(tmp_path / "none.json")


def test_links() -> None:
    assert link("pcie4") == LINKS["pcie4"]
    assert link("12.5") == 12.5e9


def test_known_devices_say_where_their_numbers_are_from() -> None:
    for rates in KNOWN.values():
        assert "float32" in rates.matrix
        assert "http" in rates.source
        assert ("measured" in rates.source) == (rates.name in ("NVIDIA H200", "NVIDIA H100 SXM"))
        assert list(rates.matrix.values()) == sorted(rates.matrix.values())


def test_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for devices in ("h200", "h200,h200"):
        path = tmp_path / f"{devices}.png"
        plan(capsys, "--devices", devices, "--batch-size", "128", "--picture", str(path))
        with Image.open(path) as image:
            assert image.size[0] > 500


def test_floors_of_every_known_device_and_recipe() -> None:
    for recipe in ("alexnet-2012", "small", "one-weird-trick", "code145"):
        base = load(recipe)
        for name in KNOWN:
            plan = planning.setting(base, ",".join([name] * base.columns), {}, None, 1000)
            assert tables(plan, planning.precisions(None, plan.devices), [base.batch_size])


def test_energy_is_watts_times_hours_with_its_sources(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(plan(capsys, "--devices", "h100,h100", "--precision", "tf32", "--json"))["steps"][0]
    assert found["training_kilowatt_hours"] == pytest.approx(2 * 0.7 * found["training_seconds"] / 3600)
    said = plan(capsys, "--devices", "h100,h100", "--precision", "tf32", "--energy", "--markdown")
    table = said.split("Energy of 90 epochs")[1]
    assert f"| {found['training_kilowatt_hours'] / 0.4:.3g} |" in table
    assert "58.6 to 70.3 kWh" in table
    assert "game-debate.com" in table
    assert "Energy" not in plan(capsys, "--devices", "h100", "--markdown"), "only where it is asked for"
    given = plan(capsys, "--devices", "t4", "--energy", "--watts", "70", "--markdown")
    assert "70 W as given" in given
    assert "the power of NVIDIA T4 is not known; give the watts" in error(capsys, "--devices", "t4", "--energy")
    assert "also give --energy" in error(capsys, "--devices", "t4", "--watts", "70")
    assert "--energy is for one or two devices" in error(capsys, "--devices", "8xh200", "--energy")


def test_one_device_for_both_columns_is_counted_once(capsys: pytest.CaptureFixture[str]) -> None:
    one = json.loads(plan(capsys, "--devices", "h100", "--precision", "tf32", "--json"))["steps"][0]
    assert one["training_kilowatt_hours"] == pytest.approx(0.7 * one["training_seconds"] / 3600)


def test_many_devices(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(plan(capsys, "--devices", "8xh200", "--nodes", "4", "--batch-size", "1024,8192", "--json"))
    assert found["label"] == "arithmetic, not measured"
    steps = [one for one in found["steps"] if (one["precision"], one["images"]) == ("bfloat16", 8192)]
    assert sorted({one["devices"] for one in steps}) == [1, 2, 4, 8, 16, 32]
    assert len([one for one in steps if one["devices"] == 32]) == 5
    words = plan(capsys, "--devices", "8xh200", "--nodes", "4", "--batch-size", "1024", "--precision", "bfloat16")
    assert words.count("arithmetic, not measured") == 3
    assert "Ways to use 32 devices" in words
    assert "45.0 GB/s from a node to others" in words
    assert "|" in plan(capsys, "--devices", "2xh200", "--batch-size", "256", "--markdown")
    slower = plan(capsys, "--devices", "2xh200", "--link", "pcie4", "--batch-size", "256")
    assert "25.0 GB/s from a device" in slower


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--nodes", "2"), "--devices 8xh200"),
        (("--devices", "h200", "--network", "400g"), "--devices 8xh200"),
        (("--devices", "8xh20"), "Did you mean 'h200'"),
        (("--devices", "8xh200", "--network", "fast"), "gigabits a second"),
        (("--devices", "2xgtx580", "--precision", "bfloat16"), "bfloat16"),
        (("--devices", "8xh200", "--picture", "a.png"), "leave it out"),
        (("--devices", "512xh200", "--nodes", "4"), "more than 1,024"),
        (("--devices", "8xh200", "--batch-size", "4"), "--batch-size"),
    ],
)
def test_what_is_said_of_many_devices(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert said in error(capsys, *arguments)


@pytest.mark.parametrize("devices", ["h100", "h200,h200"])
def test_on_a_terminal_of_80_columns_it_is_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, devices: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", "80")
    said = re.sub(r"\x1b\[[0-9;]*m", "", plan(capsys, "--devices", devices, "--batch-size", "1024", "--energy"))
    assert max(map(len, said.splitlines())) <= 80
    assert "floor's speed" in said
    monkeypatch.delenv("FORCE_COLOR")
    assert max(map(len, plan(capsys, "--devices", devices).splitlines())) == 100, "a file has whole lines"


@pytest.mark.parametrize("columns", [80, 100])
def test_many_devices_fit_a_terminal_and_no_number_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    words = ("--devices", "8xh200", "--nodes", "4", "--batch-size", "1024,8192")
    whole = plan(capsys, *words)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", str(columns))
    said = re.sub(r"\x1b\[[0-9;]*m", "", plan(capsys, *words))
    assert max(map(len, said.splitlines())) <= columns
    assert "…" not in said
    numbers = r"[\d.,]+ (?:ms|µs|min|h|MB|GB)\b"
    assert set(re.findall(numbers, whole)) == set(re.findall(numbers, said))
