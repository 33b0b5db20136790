"""What the workflows may do, and what the book is made with."""

import json
import re
import shutil
import subprocess

import pytest
import yaml

from references import ROOT
from support import skip_or_fail

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
JOBS = [
    pytest.param(job, id=f"{path.stem}-{name}")
    for path in WORKFLOWS
    for name, job in yaml.safe_load(path.read_text())["jobs"].items()
]
PAGES = yaml.safe_load((ROOT / ".github/workflows/pages.yml").read_text())["jobs"]


def script_of(job):
    return "\n".join(step.get("run", "") for step in job["steps"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_named_by_commit(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    for line in used:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)


def test_one_commit_an_action():
    text = "".join(path.read_text() for path in WORKFLOWS)
    used = set(re.findall(r"uses: ([\w/-]+)@(.*)", text))
    assert len(used) == len({name for name, _ in used})


@pytest.mark.parametrize("job", JOBS)
def test_what_runs_the_repositorys_code_may_write_nothing(job):
    """A job that writes checks nothing out; one that checks out only reads, and keeps no
    credentials."""
    checkouts = [step for step in job["steps"] if "actions/checkout@" in step.get("uses", "")]
    runs_code = re.search(r"\bmake\b|\.ci/run|\bpip\b|\bnpm\b", script_of(job))
    if checkouts or runs_code:
        assert job["permissions"] == {"contents": "read"}
        assert "secrets" not in str(job) and "github.token" not in str(job)
    else:
        assert any("write" in value for value in job["permissions"].values())
        assert "needs" in job
    for step in checkouts:
        assert step["with"]["persist-credentials"] is False


def test_the_token_is_seen_by_the_push_alone():
    steps = PAGES["notebooks"]["steps"]
    told = [step for step in steps if "github.token" in str(step)]
    assert [step["name"] for step in told] == ["push it"]
    assert told[0]["run"].startswith("git -C branch push")


def test_publishing_takes_what_was_built(tmp_path):
    """The job of the notebooks' branch, run on an artefact with traps in it."""
    uploads = [step.get("with", {}).get("name") for step in PAGES["build"]["steps"]]
    steps = PAGES["notebooks"]["steps"]
    assert steps[0]["with"]["name"] in uploads
    assert PAGES["notebooks"]["needs"] == PAGES["publish"]["needs"] == "build"
    built = tmp_path / steps[0]["with"]["path"]
    (built / ".git/hooks").mkdir(parents=True)
    (built / "bsc.ipynb").write_text("{}")
    (built / "trap.ipynb").symlink_to("/proc/self/environ")
    (built / "run.sh").write_text("exit 1\n")
    script = "set -e\n" + steps[1]["run"]
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True, capture_output=True)
    kept = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD"],
        cwd=tmp_path / "branch",
        capture_output=True,
        text=True,
        check=True,
    )
    assert kept.stdout.split() == ["bsc.ipynb"]
    assert "HEAD:notebooks" in steps[2]["run"]


INSTALLING = [*WORKFLOWS, ROOT / "Makefile", ROOT / ".ci/run", ROOT / "postBuild"]


def test_everything_is_installed_under_constraints():
    lines = [line for path in INSTALLING for line in path.read_text().splitlines()]
    installs = [line for line in lines if re.search(r"\bpip3? install\b", line)]
    assert len(installs) >= 3
    for line in installs:
        assert "--constraint constraints.txt" in line
    macro = re.search(r"^INSTALL := (.*)$", (ROOT / "Makefile").read_text(), flags=re.M)[1]
    assert "--build-constraint constraints.txt" in macro
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"][-1]["pip"]
    assert conda[0] == "--constraint constraints.txt"
    pinned = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in pinned)


def test_bill_of_materials():
    """`make sbom` on this environment: CycloneDX, every package of the site with its version."""
    if not shutil.which("cyclonedx-py", path=str(ROOT / ".venv/bin")):
        skip_or_fail("this needs `pip install -e '.[sbom]'`")
    # the environment is there: nothing is installed on the way
    command = ["make", "sbom", "--old-file=.venv/.book", "INSTALL=true"]
    command += ["--old-file=chapters/_ext/node_modules/.package-lock.json"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    listed = {}
    for name in ("python", "npm"):
        bill = json.loads((ROOT / f"build/sbom/{name}.json").read_text())
        assert bill["bomFormat"] == "CycloneDX"
        listed[name] = {part["name"]: part["version"] for part in bill["components"]}
    pins = dict(re.findall(r"^([\w.-]+)==(.*)$", (ROOT / "constraints.txt").read_text(), re.M))
    for package in ("numpy", "jupyter-book"):
        assert listed["python"][package] == pins[package]
    package = json.loads((ROOT / "chapters/_ext/package.json").read_text())
    for name, version in package["dependencies"].items():
        assert listed["npm"][name] == version
