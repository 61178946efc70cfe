import csv
import io
import math

import pytest

from genprior.table import Estimate, Table


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (Estimate(28.3456, 0.1234), "28.35 ± 0.12"),
        (Estimate(0.98765, 0.0099), "0.9877 ± 0.0099"),
        (Estimate(1234.5, 67.0), "1234 ± 67"),
        (Estimate(1234.5, 0.0), "1234"),
        (Estimate(math.pi), "3.142"),
        (Estimate(0.5 - 1e-16, 5e-18), "0.5"),
        (Estimate(1.0, math.nan), "1"),
    ],
)
def test_figure_shows_two_digits_of_its_error(figure, text):
    assert str(figure) == text


def test_mean_has_the_standard_error_of_independent_values():
    values = [1.0, 2.0, 3.0, 6.0]
    variance = sum((v - 3) ** 2 for v in values) / 3
    assert Estimate.mean(values) == pytest.approx((3.0, math.sqrt(variance / 4)))
    assert Estimate.mean([5.0]) == (5.0, None)


def test_average_of_figures_has_the_error_that_theirs_give_it():
    average = Estimate.average([Estimate(1.0, 0.3), Estimate(3.0, 0.4)])
    assert average == pytest.approx((2.0, 0.25))  # sqrt(0.3^2 + 0.4^2) / 2
    assert Estimate.average([Estimate(1.0, 0.3), Estimate(3.0)]) == (2.0, None)


def test_tables_say_the_same_in_markdown_and_csv():
    table = Table([{"sampler": "a|b", "psnr": Estimate(20.0, 0.5)}, {"sampler": "c", "n": 3, "ssim": 0.5}])
    assert table.markdown().splitlines() == [
        "| sampler | psnr | n | ssim |",
        "| --- | --- | --- | --- |",
        "| a\\|b | 20.00 ± 0.50 |  |  |",
        "| c |  | 3 | 0.5 |",
    ]
    first, second = csv.DictReader(io.StringIO(table.csv()))
    assert first == {"sampler": "a|b", "psnr": "20.0", "psnr standard error": "0.5", "n": "", "ssim": ""}
    assert second == {"sampler": "c", "psnr": "", "psnr standard error": "", "n": "3", "ssim": "0.5"}
