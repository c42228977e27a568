"""What `deploy/` holds, by its own linters: nothing is built, and nothing runs."""

import re
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from places import ROOT

from dit_jax.config import Config
from dit_jax.configs import base
from dit_jax.strict import flatten

FOLDER = ROOT / "deploy"
BIN = Path(sys.executable).parent


def asked(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["Dockerfile", "serve.Dockerfile"])
def test_dockerfiles(name):
    asked(BIN / "hadolint", FOLDER / name)


@pytest.mark.parametrize("script", ["train.sbatch", "queued.sh"])
def test_scripts(script):
    asked(BIN / "shellcheck", FOLDER / script)


def test_versions_are_those_of_the_requirements():
    pins = "".join(path.read_text() for path in ROOT.glob("requirements*.txt"))
    for name in ("Dockerfile", "queued.sh"):
        found = re.findall(r"(\w+)(?:\[\w+\])?==([\d.]+)", (FOLDER / name).read_text())
        assert found
        assert all(
            f"{package}=={version}\n" in pins.replace("  #", "\n") for package, version in found
        )


@pytest.mark.parametrize("name", ["jobset.yaml", "train.sbatch", "queued.sh"])
def test_settings_exist(name):
    named = re.findall(r"--config\.([\w.]+)=", (FOLDER / name).read_text())
    assert len(named) > 3
    assert set(named) <= set(flatten(Config.from_dict(base.recipe("ldit_vit_h", "paper"))))


def test_the_jobs_of_the_manifest():
    """Kubernetes has a schema of these; the registries have none of the JobSet around them."""
    manifest = yaml.safe_load((FOLDER / "jobset.yaml").read_text())
    assert set(manifest) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(manifest["spec"]) == {"failurePolicy", "replicatedJobs"}
    for one in manifest["spec"]["replicatedJobs"]:
        assert set(one) == {"name", "replicas", "template"}
        job = dict(apiVersion="batch/v1", kind="Job", metadata=dict(name="x"), **one["template"])
        kubernetes_validate.validate(job, "1.34", strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            wrong = dict(job["spec"], completions="four")
            kubernetes_validate.validate(job | dict(spec=wrong), "1.34", strict=True)
