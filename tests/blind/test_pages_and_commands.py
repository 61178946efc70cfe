"""What is identified, on the command line and on the demo's page."""

import json

import pytest
import skimage.data
from PIL import Image

import genprior
from genprior import images
from genprior.cli import main
from genprior.demo import work


@pytest.fixture(scope="module")
def blurred(tmp_path_factory):
    clean = images.read(skimage.data.astronaut()).x[0, :, 20:140, 150:270]
    y = genprior.degrade(clean, "gaussian-deblur", width=1.5, noise=0.01, seed=0).y[0]
    path = tmp_path_factory.mktemp("blurred") / "y.png"
    images.save(images.to_pil(y.clamp(0, 1)), path)
    return path


def test_the_command_prints_json_and_text_and_goes_on_after_a_failure(blurred, tmp_path, capsys):
    small = tmp_path / "small.png"
    Image.new("RGB", (20, 20)).save(small)
    assert main(["identify", str(small), str(blurred), "--op", "gaussian-deblur", "--json"]) == 1
    failed, found = map(json.loads, capsys.readouterr().out.splitlines())
    assert "windows of 64 x 64" in failed["error"]
    low, high = found["identified"]["width"]["interval"]
    assert low < 1.5 < high
    assert set(found["identified"]) == {"width", "noise"}
    figure = tmp_path / "figure.png"
    given = ["--op", "gaussian-deblur", "--noise", "0.01", "--figure", str(figure)]
    assert main(["identify", str(blurred), *given]) == 0
    assert "noise     0.01, as given" in capsys.readouterr().out
    assert figure.stat().st_size > 1000
    assert main(["identify", str(blurred), *given]) == 1  # the figure is there


def test_commands_take_ranges_and_laws(blurred, tmp_path, capsys):
    given = ["--op", "gaussian-deblur", "--noise", "0.005:0.02", "--json"]
    assert main(["identify", str(blurred), "--width", "1.4:1.45", *given]) == 0
    assert 1.4 <= json.loads(capsys.readouterr().out)["identified"]["width"]["mean"] <= 1.45
    assert main(["identify", str(blurred), "--width", "normal:1.3,0.001", *given]) == 0
    assert json.loads(capsys.readouterr().out)["identified"]["width"]["mean"] == pytest.approx(1.3, abs=0.1)
    restored = ["restore", str(blurred), "--op", "gaussian-deblur", "--width", "1.4:1.45", "--prior", "gaussian-photo"]
    assert main([*restored, "-o", str(tmp_path / "x.png"), "--json"]) == 0
    for wrong in ("1:", "a:b", "normal:1", "normal:1,-1", "gamma:1,2"):
        with pytest.raises(SystemExit):
            main(["identify", str(blurred), "--width", wrong])
        assert "no range LOW:HIGH and no law normal:MEAN,SD" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["degrade", str(blurred), "--op", "gaussian-deblur", "--width", "1:2", "-o", str(tmp_path / "y.png")])


def test_the_page_identifies_what_a_user_does_not_know(blurred):
    photo = work.as_photo(str(blurred))
    assert work.obstacle(photo, "gaussian-deblur", {}, clean=False) is None
    outcome = work.restore_photo(photo, "gaussian-deblur", {}, prior="gaussian-photo", n=2, seed=0)
    assert outcome.facts["identified"].startswith("width 1.")
    assert "noise 0.01" in outcome.facts["identified"]
