"""The examples of deployment, as far as a machine without Docker, nginx and rights can try them."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import crossplane
import httpx
import pytest

from nanochat.config import parse
from nanochat.serve.guard import LOCAL, Limits
from nanochat.serve.server import ServeConfig
from tests.serving import models_of, scripted, serving

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNIT = (DEPLOY / "nanochat.service").read_text(encoding="utf-8")
NGINX = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
CONTAINER = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
DEFAULTS = ServeConfig()


def instructions() -> list[tuple[str, str]]:
    """(word, the rest) of each instruction of the container file, lines that go on joined."""
    joined = re.sub(r" *\\\n *", " ", re.sub(r"^#.*\n", "", CONTAINER, flags=re.MULTILINE))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())]


def commands() -> list[str]:
    """Every call of `nanochat serve` in the three files, comments too."""
    found = re.findall(r"nanochat (serve .*)", f"{UNIT}\n{NGINX}\n{CONTAINER}".replace("NAME", "demo"))
    entry = dict(instructions())
    return [*found, " ".join(json.loads(entry["CMD"]))]


def test_every_command_is_one_that_there_is() -> None:
    assert len(commands()) >= 4
    for command in commands():
        config = parse(ServeConfig, shlex.split(command.partition(" #")[0])[1:], prog="nanochat serve")
        assert config.run


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")
def test_the_unit_is_sound_and_needs_few_rights(tmp_path: Path) -> None:
    copy = tmp_path / "nanochat.service"
    copy.write_text(UNIT.replace("/srv/nanochat/.venv/bin/python", sys.executable))
    verified = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
    assert "nanochat.service" not in verified.stderr, verified.stderr
    assert verified.returncode == 0
    rated = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", str(copy)]
    assert subprocess.run(rated, capture_output=True).returncode == 0


def test_whoever_stops_the_server_waits_for_it_to_drain() -> None:
    assert int(re.findall(r"TimeoutStopSec=(\d+)", UNIT)[0]) > DEFAULTS.drain_seconds
    assert "KillSignal" not in UNIT  # SIGTERM, as it is without


def test_the_proxy_is_understood_and_lets_streams_through() -> None:
    parsed = crossplane.parse(str(DEPLOY / "nginx.conf"), check_ctx=False, strict=False)
    assert (parsed["status"], parsed["errors"]) == ("ok", [])
    servers = [block for block in parsed["config"][0]["parsed"] if block["directive"] == "server"]
    tls = next(server["block"] for server in servers if any("ssl" in one["args"] for one in server["block"]))
    values = {one["directive"]: one["args"] for one in tls}
    root = next(one["block"] for one in tls if one["directive"] == "location" and one["args"] == ["/"])
    inner = [(one["directive"], one["args"]) for one in root]
    assert ("proxy_buffering", ["off"]) in inner
    assert ("proxy_set_header", ["Host", "$host"]) in inner
    (seconds,) = dict(inner)["proxy_read_timeout"]
    assert int(seconds.removesuffix("s")) > DEFAULTS.seconds
    assert int(values["client_max_body_size"][0].removesuffix("m")) * 1_000_000 == Limits().body_bytes


def test_behind_a_proxy_the_server_knows_its_name_and_its_page() -> None:
    name = re.findall(r"server_name ([\w.]+);", NGINX)[0]
    assert f"--names {name}" in NGINX
    with serving(models_of(script=scripted()), Limits(hosts=(*LOCAL, name), api_key="k")) as url:
        own = {"Host": name, "Origin": f"https://{name}", "Authorization": "Bearer k"}
        assert httpx.get(f"{url}/v1/models", headers=own).status_code == 200
        assert httpx.get(f"{url}/v1/models", headers={**own, "Origin": "https://other.example"}).status_code == 403
        assert httpx.get(f"{url}/v1/models", headers={**own, "Host": "other.example"}).status_code == 403


def test_the_container_runs_without_rights_and_has_what_it_copies() -> None:
    found = instructions()
    assert next(rest for word, rest in reversed(found) if word == "USER") == "cook"
    for word, rest in found:
        if word == "COPY":
            *sources, _ = rest.split()
            assert all((ROOT / source).exists() for source in sources), rest
    scripts = [rest for word, rest in found if word == "RUN"]
    for script in scripts:
        assert subprocess.run(["bash", "-nc", script], capture_output=True).returncode == 0
    assert all(
        "-c constraints.txt" in call for script in scripts for call in re.findall(r"pip install.*?(?:&&|$)", script)
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_the_container_copies_is_enough_to_serve(tmp_path: Path) -> None:
    app = tmp_path / "app"
    for word, rest in instructions():
        if word != "COPY":
            continue
        *sources, target = rest.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, app / target, dirs_exist_ok=True)
            else:
                app.mkdir(exist_ok=True)
                shutil.copy(ROOT / source, app)
    words = json.loads(dict(instructions())["CMD"])
    environment = {**os.environ, "PYTHONPATH": str(app), "NANOCHAT_HOME": str(tmp_path / "data"),
                   "NANOCHAT_API_KEY": "k", "PIP_NO_INDEX": "1"}  # fmt: skip
    command = [sys.executable, "-m", "nanochat", *words, "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(command, cwd=app, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        url = ""
        while not url:
            line = process.stderr.readline()
            assert line, "it has ended"
            url = next(iter(re.findall(r"http://[\w.:]+", line)), "")
        answer = httpx.get(f"{url}/v1/models", headers={"Authorization": "Bearer k"})
        assert answer.json()["data"][0]["id"] == "reference:rl"
        assert httpx.get(f"{url}/health").status_code == 200
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.stderr.close()
