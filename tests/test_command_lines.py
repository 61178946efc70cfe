"""Every command line of the README, the pages and the recipes is one that its program understands.

Lines of a code block are whole. In running text a command may be named without all it needs; what is given of it must
exist. Those that take seconds are run here as they stand, with fewer steps; the launched ones in test_processes.py.
"""

import argparse
import re
import runpy
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch.distributed.run
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from PIL import Image

from genprior.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = ("genprior", "torchrun", "accelerate", "python", "make", "pip")
PLACEHOLDERS = {"NODE": "0", "HOST": "127.0.0.1"}


def words_of(text):
    """The words of a command, or None if it is no command of ours."""
    text = re.sub(r"\\\s*\n|\s+", " ", text).strip()
    if not text.startswith(tuple(f"{name} " for name in PROGRAMS)):
        return None
    return [PLACEHOLDERS.get(word, word) for word in shlex.split(text, comments=True)]


def commands_of(text):
    """(words, whether they are all it takes) of each command of a page, those in code blocks first."""
    fence = r"^```(\w*)\n(.*?)^```$"
    for language, block in re.findall(fence, text, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines() if language in ("", "sh") else ():
            if words := words_of(line):
                yield words, True
    for code in re.findall(r"`([^`]+)`", re.sub(fence, "", text, flags=re.MULTILINE | re.DOTALL)):
        # What is left out of a command in running text is marked so.
        if words := words_of(re.sub(r"…|\.\.\.", "", code)):
            yield words, False


def usages(path):
    """The command lines at the top of a recipe, of which [ ] are optional."""
    text = path.read_text(encoding="utf-8")
    head = re.sub(r"\s*\\+\n\s*", " ", text.split('"""')[1])
    for line in re.findall(r"^ *(python recipes.*)$", head, flags=re.MULTILINE):
        yield words_of(re.sub(r"   .*|[\[\]]", "", line)), True


FOUND = [(path, *found) for path in PAGES for found in commands_of(path.read_text(encoding="utf-8"))]
FOUND += [(path, *found) for path in sorted((ROOT / "recipes").rglob("*.py")) for found in usages(path)]


class Parsed(Exception):
    """Instead of running what was parsed."""


parse_args = argparse.ArgumentParser.parse_args


def parse(program, words, monkeypatch):
    """What is wrong with the arguments of a program, which ends once it has parsed them; or None."""

    def stop(self, arguments=None, namespace=None):
        raise Parsed(parse_args(self, arguments, namespace))

    def error(self, message):
        raise Parsed(message)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "error", error)
    with pytest.raises(Parsed) as parsed:
        program(words)
    (found,) = parsed.value.args
    return found if isinstance(found, str) else None


def run_recipe(words, monkeypatch):
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.syspath_prepend(str((ROOT / words[0]).parent))
    runpy.run_path(str(ROOT / words[0]), run_name="__main__")


def check(words, monkeypatch):
    """What is wrong with a command, or None."""
    program, *words = words
    if program == "genprior":
        return parse(main, words, monkeypatch)
    if program == "torchrun":
        options = parse_args(torch.distributed.run.get_args_parser(), words)
        return launched(options.module, options.training_script, options.training_script_args, words, monkeypatch)
    if program == "accelerate" and words[0] == "launch":
        words += ["-m", "genprior", "priors"] * ("genprior" not in words)
        options = parse_args(launch_command_parser(), words[1:])
        return launched(options.module, options.training_script, options.training_script_args, words, monkeypatch)
    if program == "python" and words[0].startswith("recipes/"):
        assert (ROOT / words[0]).exists()
        return parse(lambda words: run_recipe(words, monkeypatch), words, monkeypatch)
    if program == "python" and words[0] == "-c":
        compile(words[1], "-c", "exec")
        return None
    if program == "python":
        files = [word for word in words if word.endswith(".py")]
        assert files or words[:2] in [["-m", module] for module in ("build", "pip", "twine", "venv")]
        return next((f"no file {file}" for file in files if not (ROOT / file).exists()), None)
    if program == "make":
        rules = re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        return None if words[0] in rules else f"make has no {words[0]}"
    if program == "pip":
        extras = [
            extra for word in words if word.startswith("genprior[") for extra in word[len("genprior[") : -1].split(",")
        ]
        named = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), flags=re.MULTILINE)
        return next((extra for extra in extras if extra not in named), None)
    assert (program, words) == ("accelerate", ["config"])
    return None


def launched(module, script, arguments, words, monkeypatch):
    """What is wrong with the command that a launcher is given; it must not take an argument of ours for its own."""
    assert (module, script) == (True, "genprior")
    assert arguments == words[words.index("genprior") + 1 :]
    return parse(main, arguments, monkeypatch)


def test_commands_are_found_in_every_place():
    assert len(FOUND) > 90
    programs = {words[0] for _, words, _ in FOUND}
    assert programs == set(PROGRAMS)
    assert {path.stem for path, *_ in FOUND} >= {"README", "training", "start", "demo", "train_ddpm_photo"}


@pytest.mark.parametrize(
    ("path", "words", "whole"), FOUND, ids=[f"{path.stem} {k}" for k, (path, *_) in enumerate(FOUND)]
)
def test_command_is_understood(path, words, whole, monkeypatch):
    wrong = check(words, monkeypatch)
    if not whole and wrong and ("are required" in wrong or "expected one argument" in wrong):
        return
    assert wrong is None, shlex.join(words)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("genprior restore a.png -o b.png --saple", "unrecognized arguments: --saple"),
        ("genprior train vea --data x --out y", "invalid choice"),
        ("torchrun --nproc_per_node 2 -m genprior train ddpm --out y", "--data/--train-data-dir"),
        ("python recipes/train_vae_mnist.py", "required: --data"),
        ("make tset", "make has no tset"),
        ('pip install "genprior[dmeo]"', "dmeo"),
    ],
)
def test_a_wrong_command_is_found(line, wrong, monkeypatch):
    assert wrong in check(words_of(line), monkeypatch)


@pytest.mark.parametrize(("machines", "processes"), [(2, 8), (1, 4)])
def test_the_file_for_accelerate_is_one_that_it_reads(machines, processes, tmp_path):
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    config = re.search(r"```yaml\n(.*?)```", text, flags=re.DOTALL)[1]
    for name, value in PLACEHOLDERS.items():
        config = config.replace(name, value)
    if machines == 1:  # as the page says
        config = config.replace("num_machines: 2", "num_machines: 1").replace("num_processes: 8", "num_processes: 4")
        config = re.sub(r"main_process.*\n", "", config)
    (tmp_path / "cluster.yaml").write_text(config)
    read = load_config_from_file(str(tmp_path / "cluster.yaml"))
    assert (read.num_machines, read.num_processes, read.mixed_precision) == (machines, processes, "no")
    assert str(read.distributed_type).endswith("MULTI_GPU")


# ---- lines that take seconds, as they stand, with less to do ----

LESS = {
    "restore": "--steps 2",
    "sample": "--n 1 --steps 2",
    "train": "--steps 1 --batch 1 --size 16",
    "evaluate": "--steps 1 --n 1 --length 5 --crop 24",
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    photo = Image.fromarray(random.integers(60, 200, (24, 24, 3), dtype=np.uint8))
    for folder in ("holed", "photos", "my-photos", "others", "other-photos"):
        Path(folder).mkdir()
        photo.save(f"{folder}/a.png")
    Path("masks").mkdir()
    mask = Image.fromarray(random.random((24, 24)) < 0.2)
    for name in ("masks/a.png", "mask.png"):
        mask.save(name)
    photo.resize((8, 8)).save("small.png")
    for name in ("photo.jpg", "damaged.png"):
        photo.save(name)
    np.savez("mnist.npz", train_images=random.integers(0, 256, (200, 28, 28), dtype=np.uint8))
    return tmp_path


RUN = [
    words
    for path, words, whole in FOUND
    if whole and path.stem in ("README", "training") and words[0] == "genprior" and words[1] in LESS
    if words[2] != "truth" and "--compile" not in words
]


def test_lines_of_readme_and_training_run(home, capsys):
    assert len(RUN) == 9
    for words in RUN:
        words = [*words[1:], *LESS[words[1]].split()]
        code = main(words)
        assert code == 0, (words, capsys.readouterr().err)
    made = ("filled/a.png", "filled/a_std.png", "large.png", "fives.png", "runs/mine/prior", "results/table.md")
    assert all((home / name).exists() for name in (*made, "restored.png", "digits.png"))
