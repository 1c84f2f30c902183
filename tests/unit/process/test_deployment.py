from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from zipfile import ZipFile

import kubernetes_validate
import pytest
import yaml

from service.domain.observability.metrics import DETAILS, series_names
from service.settings import SETTINGS
from tests.programs import required_program

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
OPERATIONS = ROOT / "docs/operations"
RUNBOOKS = (OPERATIONS / "runbooks.md").read_text()
KUBERNETES = "1.32"  # the oldest that the manifests are checked against

VARIABLES = {f"COURSEWIRE_{setting.name}" for setting in SETTINGS}


def rules(name: str) -> list[dict]:
    document = yaml.safe_load((PROMETHEUS / name).read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules("alerts.yml")}
RECORDED = {rule["record"] for rule in rules("recording.yml")}


def unknown_series(expression: str) -> set[str]:
    named = set(re.findall(r"\bcoursewire[_:][\w:]*", expression))
    return named - series_names() - RECORDED


def run(program: str, *arguments: str, cwd: Path) -> None:
    command = [required_program(program), *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# --- the image ---------------------------------------------------------------------------------


DOCKERFILE = (ROOT / "Dockerfile").read_text()
COPIED = [
    source
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    for source in sources.split()
]


def test_what_the_dockerfile_copies_is_let_through():
    allowed = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert set(COPIED) == allowed


def test_the_wheel_that_the_dockerfile_builds_of_what_it_copies_has_every_file(tmp_path):
    for source in COPIED:
        if (ROOT / source).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / source, tmp_path / source, ignore=ignored)
        else:
            shutil.copy(ROOT / source, tmp_path)
    (command,) = re.findall(r"\bpip (wheel .+) \.(?: \\)?$", DOCKERFILE, re.MULTILINE)
    arguments = command.replace("/wheels", str(tmp_path / "wheels")).split()
    run(sys.executable, "-m", "pip", *arguments, ".", cwd=tmp_path)
    (wheel,) = (tmp_path / "wheels").glob("coursewire-*.whl")
    with ZipFile(wheel) as packed:
        names = set(packed.namelist())
    for package in ("service", "workers"):
        files = (path for path in (tmp_path / package).rglob("*") if path.is_file())
        assert {str(path.relative_to(tmp_path)) for path in files} <= names
    (entry,) = re.findall(r'^ENTRYPOINT \["([a-z]+)"\]$', DOCKERFILE, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert entry in project["scripts"]
    (module,) = re.findall(r'"python", "-m", "([a-z.]+)"', DOCKERFILE)
    assert f"{module.replace('.', '/')}.py" in names


# --- Prometheus ---------------------------------------------------------------------------------


def test_rules_and_configuration_are_valid():
    run("promtool", "check", "rules", "recording.yml", "alerts.yml", cwd=PROMETHEUS)
    for name in ("prometheus.yml", "static.yml"):
        run("promtool", "check", "config", "--syntax-only", name, cwd=PROMETHEUS)


@pytest.mark.slow
def test_every_alert_does_what_its_cases_say():
    run("promtool", "test", "rules", "tests.yml", cwd=PROMETHEUS)


@pytest.mark.parametrize(
    "rule",
    [*rules("recording.yml"), *ALERTS.values()],
    ids=lambda rule: rule.get("record") or rule["alert"],
)
def test_rules_name_metrics_that_are_declared(rule):
    assert unknown_series(rule["expr"]) == set()


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_has_a_runbook_that_it_leads_to(name):
    annotations, labels = ALERTS[name]["annotations"], ALERTS[name]["labels"]
    assert f"\n## {name}\n" in RUNBOOKS
    docs = '{{ or $externalLabels.coursewire_docs "docs" }}'
    assert annotations["runbook_url"] == f"{docs}/operations/runbooks.md#{name.lower()}"
    assert annotations["summary"]
    assert labels["severity"] in ("page", "ticket")


def test_no_runbook_is_left_of_an_alert_that_is_gone():
    assert set(re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE)) == set(ALERTS)


def test_every_alert_is_tested_firing_and_silent():
    fires: set[str] = set()
    silent: set[str] = set()
    for case in yaml.safe_load((PROMETHEUS / "tests.yml").read_text())["tests"]:
        for check in case["alert_rule_test"]:
            (fires if check.get("exp_alerts") else silent).add(check["alertname"])
    assert fires == set(ALERTS)
    assert silent == set(ALERTS)


def test_replicas_are_never_added_up():
    """But for what each process counts of itself."""
    for rule in [*rules("recording.yml"), *ALERTS.values()]:
        for inner in re.findall(r"sum[^(]*\((?:rate\()?(coursewire_\w+)", rule["expr"]):
            assert inner.startswith("coursewire_api_"), rule


# --- Grafana ------------------------------------------------------------------------------------


DASHBOARD = json.loads((DEPLOY / "grafana/dashboards/coursewire.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_asks_for_declared_metrics_and_says_what_it_shows(panel):
    assert panel["description"]
    assert panel["targets"]
    for target in panel["targets"]:
        assert unknown_series(target["expr"]) == set()
        assert "coursewire" in target["expr"]


def test_the_dashboard_asks_the_data_source_that_is_provisioned():
    sources = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    uids = {one["uid"] for one in sources}
    assert {panel["datasource"]["uid"] for panel in PANELS} == uids


def test_panels_have_ids_of_their_own_and_do_not_overlap():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_every_declared_metric_is_shown_or_alerted_on():
    shown = " ".join(
        [target["expr"] for panel in PANELS for target in panel["targets"]]
        + [rule["expr"] for rule in [*rules("recording.yml"), *ALERTS.values()]]
    )
    spread = re.compile(r"_(bucket|count|sum)$")
    assert [name for name in series_names() if spread.sub("", name) not in shown] == []


# --- Kubernetes ---------------------------------------------------------------------------------


def manifests() -> list[dict]:
    kustomization = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())
    files = {path.name for path in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    assert files == set(kustomization["resources"])
    return [
        document
        for name in kustomization["resources"]
        for document in yaml.safe_load_all((DEPLOY / "kubernetes" / name).read_text())
    ]


MANIFESTS = manifests()
PODS = [one for one in MANIFESTS if one["kind"] in ("Deployment", "StatefulSet")]
OURS = [one for one in PODS if one["metadata"]["name"] != "valkey"]


def named(manifest: dict) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


@pytest.mark.parametrize("manifest", MANIFESTS, ids=named)
def test_manifests_are_as_kubernetes_defines_them(manifest):
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_the_pod_monitor_finds_the_pods_their_port_and_the_token():
    monitor = yaml.safe_load((PROMETHEUS / "podmonitor.yaml").read_text())
    (api,) = (one for one in OURS if one["metadata"]["name"] == "api")
    selected = monitor["spec"]["selector"]["matchLabels"].items()
    assert selected <= api["spec"]["template"]["metadata"]["labels"].items()
    (container,) = api["spec"]["template"]["spec"]["containers"]
    secrets = [one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one]
    for endpoint in monitor["spec"]["podMetricsEndpoints"]:
        assert endpoint["port"] in {port["name"] for port in container["ports"]}
        assert endpoint["authorization"]["credentials"] in secrets


def test_every_configuration_scrapes_the_system_and_its_details():
    """The dashboard names both jobs."""
    details = {
        "params": {"detail": [*DETAILS]},
        "metrics": "coursewire_(integration|subscription|credential|detail)_.+",
    }
    for name in ("prometheus.yml", "static.yml"):
        jobs = yaml.safe_load((PROMETHEUS / name).read_text())["scrape_configs"]
        assert [job["job_name"] for job in jobs] == ["coursewire", "coursewire-details"]
        (kept,) = jobs[1]["metric_relabel_configs"]
        assert details == {"params": jobs[1]["params"], "metrics": kept["regex"]}
    monitor = yaml.safe_load((PROMETHEUS / "podmonitor.yaml").read_text())
    endpoints = monitor["spec"]["podMetricsEndpoints"]
    named = [rule["replacement"] for one in endpoints for rule in one["relabelings"]]
    assert named == ["coursewire", "coursewire-details"]
    (kept,) = endpoints[1]["metricRelabelings"]
    assert details == {"params": endpoints[1]["params"], "metrics": kept["regex"]}


def test_the_manifests_can_be_put_together():
    run("kubectl", "kustomize", ".", cwd=DEPLOY / "kubernetes")


@pytest.mark.parametrize("manifest", PODS, ids=named)
def test_pods_have_no_rights_and_no_foreign_variables(manifest):
    spec = manifest["spec"]["template"]["spec"]
    assert spec["enableServiceLinks"] is False
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in spec["containers"]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("manifest", OURS, ids=named)
def test_parts_get_settings_that_exist_and_survive_a_drained_node(manifest):
    name = manifest["metadata"]["name"]
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert {one["name"] for one in container["env"]} <= VARIABLES
    assert container["args"] == [name]
    assert manifest["spec"]["replicas"] >= 2
    budgets = [one for one in MANIFESTS if one["kind"] == "PodDisruptionBudget"]
    assert name in {one["metadata"]["name"] for one in budgets}


def test_what_serves_is_probed():
    (api,) = (one for one in OURS if one["metadata"]["name"] == "api")
    (container,) = api["spec"]["template"]["spec"]["containers"]
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_configuration_holds_settings_and_no_secrets():
    (config,) = (one for one in MANIFESTS if one["kind"] == "ConfigMap")
    open_settings = {f"COURSEWIRE_{one.name}" for one in SETTINGS if not one.secret}
    assert set(config["data"]) <= open_settings


def test_a_worker_may_drain_before_it_is_killed():
    from workers.rq.serving import DRAIN_SECONDS

    (worker,) = (one for one in OURS if one["metadata"]["name"] == "worker")
    grace = worker["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert grace >= DRAIN_SECONDS + 10
    compose = COMPOSE["services"]["worker"]["stop_grace_period"]
    assert int(compose.removesuffix("s")) >= DRAIN_SECONDS + 10


def test_an_api_is_left_alone_before_it_stops_and_has_the_time_to():
    from service.api.http.server import GRACE_SECONDS

    (api,) = (one for one in OURS if one["metadata"]["name"] == "api")
    spec = api["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (delay,) = (
        int(one["value"])
        for one in container["env"]
        if one["name"] == "COURSEWIRE_SHUTDOWN_DELAY_SECONDS"
    )
    probe = container["readinessProbe"]
    assert delay > probe["periodSeconds"] * probe["failureThreshold"]
    assert spec["terminationGracePeriodSeconds"] >= delay + GRACE_SECONDS + 5
    assert "preStop" not in json.dumps(container)
    compose = COMPOSE["services"]["api"]
    delay = int(compose["environment"]["COURSEWIRE_SHUTDOWN_DELAY_SECONDS"])
    assert int(compose["stop_grace_period"].removesuffix("s")) >= delay + GRACE_SECONDS + 5


def test_the_page_makes_the_secret_that_the_manifests_use():
    page = (OPERATIONS / "deploy.md").read_text()
    used = {
        variable["valueFrom"]["secretKeyRef"]["key"]
        for pod in PODS
        for container in pod["spec"]["template"]["spec"]["containers"]
        for variable in container["env"]
        if "secretKeyRef" in variable.get("valueFrom", {})
    }
    assert set(re.findall(r"--from-literal=([a-z-]+)=", page)) == used


def test_policies_and_services_choose_pods_that_there_are():
    components = {pod["metadata"]["name"] for pod in PODS}
    text = "".join(path.read_text() for path in (DEPLOY / "kubernetes").glob("*.yaml"))
    chosen = set(re.findall(r"app\.kubernetes\.io/component: (\w+)", text))
    assert chosen == components


# --- systemd and nginx --------------------------------------------------------------------------


UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def test_units_are_as_systemd_defines_them(tmp_path):
    for unit in UNITS:
        # The command must be there, as it is after an installation.
        text = unit.read_text().replace("/opt/coursewire/bin/coursewire", sys.executable)
        (tmp_path / unit.name.replace("@.", "@1.")).write_text(text)
    units = sorted(path.name for path in tmp_path.iterdir())
    command = [required_program("systemd-analyze"), "verify", "--man=no", *units]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_units_run_commands_that_there_are_and_wait_for_them(unit):
    from service.cli import coursewire
    from service.local.supervisor.programs import PROGRAMS
    from workers.rq.serving import DRAIN_SECONDS

    text = unit.read_text()
    (command,) = re.findall(r"^ExecStart=/opt/coursewire/bin/coursewire (\w+)$", text, re.MULTILINE)
    assert command in coursewire.commands
    assert set(re.findall(r"COURSEWIRE_\w+", text)) <= VARIABLES
    (seconds,) = map(int, re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE))
    if command == "worker":
        assert seconds >= DRAIN_SECONDS + 10
    if command == "up":
        assert "\nKillMode=mixed\n" in text
        assert seconds >= sum({one.stop_order: one.drain_seconds for one in PROGRAMS}.values())


@pytest.mark.parametrize("prefix", ["/hooks/", "/"])
def test_the_sample_for_nginx_is_valid_under_a_prefix_and_at_the_root(tmp_path, prefix):
    sample = (DEPLOY / "nginx/coursewire.conf").read_text()
    assert "location /hooks/ {" in sample
    sample = sample.replace("location /hooks/", f"location {prefix}")
    (tmp_path / "site.conf").write_text(sample.replace("listen 80", "listen 127.0.0.1:8080"))
    around = "pid pid; error_log stderr; events {} http { access_log off; include site.conf; }"
    (tmp_path / "nginx.conf").write_text(around)
    run("nginx", "-t", "-q", "-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), cwd=tmp_path)


# --- the workflow -------------------------------------------------------------------------------


def test_the_workflow_is_sound():
    run("actionlint", ".github/workflows/ci.yml", cwd=ROOT)


# --- Compose ------------------------------------------------------------------------------------


COMPOSE = yaml.safe_load((DEPLOY / "compose.yml").read_text())


@pytest.mark.parametrize("name", ["api", "worker", "scheduler"])
def test_compose_gives_its_parts_settings_that_exist(name):
    service = COMPOSE["services"][name]
    assert set(service["environment"]) <= VARIABLES
    assert service["command"] == [name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_compose_names_versions_and_publishes_to_this_machine_alone(name):
    service = COMPOSE["services"][name]
    assert re.search(r":v?\d", service["image"])
    for port in service.get("ports", ()):
        assert port.startswith("127.0.0.1:")
    assert "docker.sock" not in json.dumps(service)


def test_valkey_keeps_what_it_is_given_everywhere():
    valkey = next(one for one in PODS if one["metadata"]["name"] == "valkey")
    (container,) = valkey["spec"]["template"]["spec"]["containers"]
    for command in (COMPOSE["services"]["valkey"]["command"], container["args"]):
        given = dict(pairwise(command))
        assert given["--appendonly"] == "yes"
        assert given["--maxmemory-policy"] == "noeviction"


def test_what_compose_mounts_is_there():
    for service in COMPOSE["services"].values():
        for mount in service.get("volumes", ()):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).is_dir()
            else:
                assert source in COMPOSE["volumes"]
