"""`genprior evaluate truth`: what it prints and writes, on toy sizes."""

import csv
import io
import re
import shlex

import numpy as np
import pytest

from genprior.cli import main
from genprior.samplers import SAMPLERS
from genprior.samplers.annealing.ddrm import DDRM
from genprior.table import Estimate, Table
from genprior.truth import report
from genprior.truth.gaussian import correlated
from genprior.truth.report import NAMED, QUICK, SUITES, Options, Panel, plot, run


def evaluate_truth(*arguments):
    return main(["evaluate", "truth", *map(str, arguments)])


def rows_of(text):
    """The cells of the Markdown tables in a text."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_gaussian_suite_is_printed_and_written(tmp_path, capsys):
    assert evaluate_truth("--suite", "gaussian", "--samplers", "exact, ddrm", "--quick", "--out", tmp_path) == 0
    printed = capsys.readouterr().out
    written = (tmp_path / "gaussian.md").read_text()
    assert written in printed
    assert "- `ddrm`: `DDRM(steps=20" in written
    header, *rows = rows_of(written)
    assert [row[0] for row in rows] == ["exact"] * 3 + ["ddrm"] * 3
    figures = list(csv.DictReader(io.StringIO((tmp_path / "gaussian.csv").read_text())))
    for row, figure in zip(rows, figures):
        ratio = Estimate(float(figure["ratio, seen"]), float(figure["ratio, seen standard error"]))
        assert row[header.index("ratio, seen")] == str(ratio)
        assert (abs(ratio.value - 1) < 3.3 * ratio.error) == (row[0] == "exact")
    assert (tmp_path / "gaussian.png").stat().st_size > 10_000


def test_a_row_says_where_its_sampler_is_not_at_its_defaults(monkeypatch):
    """A quick form may give less than the defaults, but not in silence; what the table's own columns say counts."""
    rows = [{"sampler": "a", "steps": 20}, {"sampler": "b", "ratio": 1.0}, {"sampler": "ddrm", "steps": 20}]
    monkeypatch.setattr(report, "QUICK", {"a": {"steps": 3}, "b": {"steps": 3, "particles": 7}, "ddrm": {"steps": 2}})
    monkeypatch.setattr(report.truth, "gaussian_suite", lambda samplers, **given: Table(rows))
    quick = run("gaussian", ["ddrm"], Options(quick=True))
    assert [row.get("settings") for row in quick.table.rows] == [None, "steps=3, particles=7", None]
    assert list(quick.table.rows[1])[:2] == ["sampler", "settings"]
    assert 'except for the column "settings"' in quick.markdown()
    assert "settings" not in run("gaussian", ["ddrm"], Options()).table.columns


def test_printed_command_makes_the_same_table_again(capsys):
    evaluate_truth("--suite", "gaussian", "--samplers", "diffpir", "--quick", "--seed", 3)
    first = capsys.readouterr().out
    command = re.search(r"`genprior (evaluate truth .*)`", first)[1]
    assert main(shlex.split(command)) == 0
    assert rows_of(capsys.readouterr().out) == rows_of(first)
    evaluate_truth("--suite", "gaussian", "--samplers", "diffpir", "--quick", "--seed", 4)
    assert rows_of(capsys.readouterr().out) != rows_of(first)


def test_other_suites_run(tmp_path, capsys, monkeypatch):
    """The flow suite on a Gaussian in place of the flow, which takes longer."""
    monkeypatch.setattr(report, "load_prior", lambda name: correlated((1, 8, 8)))
    suites = ("mixture", "flow", "calibration", "supported")
    assert evaluate_truth("--suite", *suites, "--samplers", "ddrm,latent", "--quick", "--out", tmp_path) == 0
    printed = capsys.readouterr().out
    assert re.findall(r"^## (.*)$", printed, re.M) == [SUITES[name].heading for name in suites]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.{suffix}"
        for name in suites
        for suffix in ("md", "csv", "png")
        if (name, suffix) != ("supported", "png")
    )
    methods = {row[0]: row for row in rows_of((tmp_path / "mixture.md").read_text())}
    assert "ddrm" in methods
    assert "latent" not in methods  # a mixture has no decode
    calibration = {row[0] for row in rows_of((tmp_path / "calibration.md").read_text())}
    assert calibration == {"sampler", "ddrm", "latent"}


def test_flow_suite_takes_the_last_digits_of_a_file(tmp_path, capsys, monkeypatch):
    """Of noise on 8 x 8 pixels, in place of digits; the report names the file."""
    seen = []
    monkeypatch.setattr(report, "load_prior", lambda name: correlated((1, 8, 8)))
    monkeypatch.setattr(
        report.referee, "flow_suite", lambda samplers, prior, **given: seen.append(given) or Table([{"sampler": "a"}])
    )
    digits = np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "digits.npz", train_images=digits)
    found = run("flow", ["latent"], Options(quick=True, data=tmp_path / "digits.npz"))
    levels = (256 * seen[0]["truths"]).floor().int().numpy()
    assert (levels == digits[None, -1:]).all()
    assert "--data digits.npz" in found.markdown()


def test_samplers_that_suit_nothing_are_named(capsys):
    assert evaluate_truth("--suite", "gaussian", "--samplers", "vae-gibbs", "--quick") == 0
    assert "gaussian: none of vae-gibbs suits its priors." in capsys.readouterr().out


def test_wrong_names_are_refused(capsys):
    assert evaluate_truth("--suite", "gaussian", "--samplers", "ddrn", "--quick") == 1
    assert "Did you mean 'ddrm'?" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        evaluate_truth("--suite", "gauss")
    assert stopped.value.code == 2
    with pytest.raises(ValueError, match="Unknown suite 'gauss'"):
        run("gauss")


def test_evaluate_itself_is_still_there(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    assert "data" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["evaluate", "truth", "--help"])
    assert "--suite" in capsys.readouterr().out


def test_quick_parameters_are_those_of_samplers_that_exist():
    assert set(QUICK) <= set(NAMED)
    for name in NAMED:
        report._sampler(name, quick=True)
    assert report._sampler("ddrm", quick=False) == DDRM()
    assert report._sampler("tds-moments", quick=True).steps < SAMPLERS["tds-moments"]().steps
    assert report._sampler("gibbs", quick=True) == SAMPLERS["gibbs"]()
    for suite in SUITES.values():
        assert set(suite.samplers) | set(suite.quick) <= set(NAMED)


def test_figure_has_a_dot_for_every_figure_and_a_line_at_the_ideal():
    rows = [
        {"sampler": "a", "ratio": Estimate(0.5, 0.1), "error": Estimate(0.2, None)},
        {"sampler": "a", "ratio": Estimate(0.8, 0.1)},
        {"sampler": "b", "ratio": Estimate(1.1, 0.2), "error": Estimate(0.3, 0.1)},
    ]
    first, second = plot(Table(rows), "sampler", (Panel(("ratio",), 1, "log"), Panel(("error",)))).axes
    dots, line = first.lines[0], first.lines[-1]
    assert list(dots.get_xdata()) == [0.5, 0.8, 1.1]
    assert [round(float(y)) for y in dots.get_ydata()] == [0, 0, 1]
    assert list(line.get_xdata()) == [1, 1]
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b"]
    assert list(second.lines[0].get_xdata()) == [0.2, 0.3]
    assert (first.get_xscale(), second.get_xscale()) == ("log", "linear")
