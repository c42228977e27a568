"""What `deploy/` holds, by its own linters: nothing is built, and nothing runs."""

import os
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


@pytest.mark.parametrize("status", [0, 1, 75])
def test_a_job_ends_as_its_run_does(tmp_path, status):
    """0 lets those go on that depend on it; 75 is continued."""
    for name, line in (("srun", f"exit {status}"), ("scontrol", f"touch {tmp_path}/requeued")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "1"}
    done = subprocess.run(["bash", FOLDER / "train.sbatch"], env=path, cwd=tmp_path)
    assert done.returncode == status
    assert (tmp_path / "requeued").exists() == (status == 75)


def test_an_image_holds_nothing_that_people_keep_in_a_checkout():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = (ROOT / ".gitignore").read_text().splitlines()
    own = {line.strip("/") for line in kept if line.startswith("/")}
    assert own >= {"data", "models", "photos", "runs"} and own <= set(ignored)


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
