"""deploy/slurm/submit.sh with stand-ins for Slurm's commands, which run here what Slurm would run on a node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from manifests import funnel, open_run
from tests.ray_nodes import free_port

MakeImages = Callable[..., Path]
SCRIPT = Path(__file__).parents[2] / "deploy/slurm/submit.sh"
PROGRAMS = Path(sys.executable).parent
STAND_INS = {
    "scontrol": "printf 'node1\\nnode2\\n'",
    "srun": """export=${SLURM_EXPORT_ENV-ALL}
while [[ $1 == --* ]]; do
    [[ $1 != --export=* ]] || export=${1#--export=}
    shift
done
[[ $export == ALL ]] || exec env -i PATH="$PATH" "$@"
exec "$@\"""",
    "hostname": "echo 127.0.0.1",
    # Two nodes of one machine cannot have the same ports; those of other machines can.
    "ray": f"""ports=()
if [[ $1 == start ]]; then
    free() {{ python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }}
    ports=(--dashboard-agent-listen-port="$(free)" --metrics-export-port="$(free)")
fi
exec {PROGRAMS}/ray "$@" "${{ports[@]}}\"""",
}
RUN = ("run", "/recipe.yaml", "--run", "/run")
WITHOUT_RAY = {
    **STAND_INS,
    "python": "echo 2",  # the nodes that are alive
    "ray": """case "$1 $2" in
    "start --block") echo "$RAY_AUTH_MODE" >> "${0%/*}/modes"; exec -a "$0" sleep 300 ;;
    "job submit") touch "${0%/*}/submitted"; exec -a "$0" sleep "$SECONDS_OF_JOB" ;;
    "job status") echo "Job '$3' $OUTCOME" ;;
esac""",
}


def start(folder: Path, stand_ins: Mapping[str, str], *arguments: object, **more: str) -> subprocess.Popen[str]:
    """Start the script with these arguments of vl3syn, on a head without work and one node."""
    (folder / "bin").mkdir()
    (folder / "home").mkdir()
    for name, body in stand_ins.items():
        (folder / "bin" / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (folder / "bin" / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {
        "PATH": f"{folder}/bin:{PROGRAMS}:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "SLURM_JOB_ID": "1",
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_ON_NODE": "2",
        "RAY_PORT": str(free_port()),
        "DASHBOARD_PORT": str(free_port()),
        "OBJECT_STORE_BYTES": str(128 << 20),
        "RAY_TMP": str(folder / "r"),
        **more,
    }
    command = ["bash", str(SCRIPT), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, start_new_session=True)


def ended(script: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    """Wait until the script ends."""
    try:
        out, errors = script.communicate(timeout=280)
    except BaseException:
        os.killpg(script.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(script.args, script.returncode, out, errors)


def submit(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script with Ray until it ends."""
    return ended(start(folder, STAND_INS, *arguments))


def processes_of(folder: Path) -> list[str]:
    """The commands of processes that a test started."""
    commands = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            commands.append(file.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended meanwhile
    return [command for command in commands if str(folder) in command]


@pytest.mark.cluster
def test_run_succeeds_and_all_ends_with_it(short_folder: Path, make_images: MakeImages) -> None:
    pool = make_images(short_folder / "pool", 40)
    (short_folder / "recipe.yaml").write_text(f"pool: {{images: {pool}}}\nstages: [{{stage: aspect_ratio}}]\n")
    done = submit(short_folder, "run", short_folder / "recipe.yaml", "--run", short_folder / "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "succeeded" in done.stdout
    assert funnel(open_run(short_folder / "run")).rows == 40
    assert processes_of(short_folder) == []
    assert list((short_folder / "home").glob(".vl3syn-token-*")) == []


@pytest.mark.cluster
def test_job_that_fails_is_the_scripts_exit_code(short_folder: Path) -> None:
    done = submit(short_folder, "run", short_folder / "absent.yaml", "--run", short_folder / "run")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "absent.yaml: no such recipe" in done.stdout + done.stderr
    assert processes_of(short_folder) == []
    assert list((short_folder / "home").glob(".vl3syn-token-*")) == []


def test_job_that_did_not_succeed_fails_the_script(tmp_path: Path) -> None:
    """The job client exits with 0 for a job that was stopped."""
    how = {"SECONDS_OF_JOB": "0", "OUTCOME": "was stopped"}
    done = ended(start(tmp_path, WITHOUT_RAY, *RUN, **how))
    assert (done.returncode, done.stderr) == (1, "Job 'vl3syn-1' was stopped\n")
    assert processes_of(tmp_path) == []


def test_nodes_have_the_token_without_the_users_environment(tmp_path: Path) -> None:
    how = {"SECONDS_OF_JOB": "0", "OUTCOME": "succeeded", "SLURM_EXPORT_ENV": "NONE"}  # of `sbatch --export=NONE`
    done = ended(start(tmp_path, WITHOUT_RAY, *RUN, **how))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "bin/modes").read_text() == "token\ntoken\n"


def test_signal_ends_the_job_and_the_nodes(tmp_path: Path) -> None:
    how = {"SECONDS_OF_JOB": "300", "OUTCOME": "succeeded"}
    script = start(tmp_path, WITHOUT_RAY, *RUN, **how)
    while not (tmp_path / "bin/submitted").exists() and script.poll() is None:
        time.sleep(0.05)
    script.terminate()
    assert ended(script).returncode == 143
    assert processes_of(tmp_path) == []
    assert list((tmp_path / "home").glob(".vl3syn-token-*")) == []


def test_script_without_arguments_starts_nothing(tmp_path: Path) -> None:
    done = submit(tmp_path)
    assert (done.returncode, done.stderr) == (2, "give the arguments of vl3syn: run RECIPE --run RUN\n")
    assert not (tmp_path / "r").exists()
