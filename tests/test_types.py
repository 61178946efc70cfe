"""What an editor knows of `import genprior`: pyright takes what is right, and sees each call that is wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import genprior

ROOT = Path(genprior.__file__).parents[1]

CALLS = """
import genprior
from torch import Tensor

measured: genprior.Measurement = genprior.degrade("a.png", "inpaint", mask="random", noise=0.1, seed=1)
prior = genprior.load_prior("ddpm-photo")
result: genprior.Restoration = genprior.restore(measured, prior=prior, sampler=genprior.DPS(zeta=0.5), n=2)
genprior.restore("a.png", "super-resolution", scale=4, noise=0.1, sampler="mmps", seed=None)
genprior.restore(["a.png", "b.png"], noise=[0.1, 0.2], prior=lambda x_t, sigma: x_t / (1 + sigma**2))
samples: Tensor = result.samples
denoised: Tensor = prior.denoise(samples, 0.1)
supported: bool = genprior.supports(prior, "denoise")
table = genprior.evaluate(["a.png"], "denoise", prior, "ddnm", noise=0.1, n=1)

genprior.restore("a.png", n="two")  # reportArgumentType
genprior.restore("a.png", sampler=3)  # reportArgumentType
genprior.restore()  # reportCallIssue
genprior.degrade("a.png")  # reportCallIssue
genprior.DPS(zetta=0.5)  # reportCallIssue
genprior.restroe("a.png")  # reportAttributeAccessIssue
genprior.load_prior(3)  # reportArgumentType
print(result.standard_deviation)  # reportAttributeAccessIssue
number: int = result.samples  # reportAssignmentType
prior.denoize(samples, 0.1)  # reportCallIssue: of a module, a buffer or part for all that is known
"""


def test_every_module_is_checked():
    """None of the package is left out of what `make lint` checks."""
    (settings,) = re.findall(r"^\[tool\.pyright\]\n(.*?)^\[", (ROOT / "pyproject.toml").read_text(), re.S | re.M)
    assert 'include = ["genprior"]' in settings
    assert not re.search(r"^(ignore|exclude|strict)", settings, re.M)


def test_right_calls_type_check_and_wrong_ones_do_not(tmp_path):
    (tmp_path / "calls.py").write_text(CALLS)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"extraPaths": [str(ROOT)]}))
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "--project", tmp_path]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    told = [(each["range"]["start"]["line"], each["rule"]) for each in json.loads(run.stdout)["generalDiagnostics"]]
    wrong = [
        (number, rule) for number, line in enumerate(CALLS.splitlines()) for rule in re.findall(r"# (report\w+)", line)
    ]
    assert sorted(told) == sorted(wrong)
