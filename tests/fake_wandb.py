"""A W&B server for tests: real `wandb` clients talk to it on the loopback address, and it remembers all.

It answers what `wandb.init/log/finish`, `wandb sync`, `wandb sweep`, `wandb agent`, artifacts and reports ask in wandb
0.31. The protocol is private and may change with wandb. Everything is kept in memory:

    with FakeWandb() as server:
        subprocess.run([...], env=server.env(home))
        server.runs[run_id]["history"]
"""

import base64
import gzip
import itertools
import json
import os
import random
import re
import string
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

import yaml

ENTITY = "local"
API_KEY = "0" * 40
PROJECT_ID = "project-id"


def suggest_parameters(sweep: dict, runs: list[dict]) -> dict | None:
    """Return the next run's parameters: a grid in order, else independent draws; None when a grid is done."""
    parameters = sweep["config"].get("parameters", {})
    choices = {
        name: space.get("values", [space["value"]] if "value" in space else None) for name, space in parameters.items()
    }
    if sweep["config"].get("method") == "grid":
        combination = next(itertools.islice(itertools.product(*choices.values()), len(runs), None), None)
        return dict(zip(choices, combination, strict=True)) if combination else None

    def draw(name: str, space: dict):
        if choices[name] is not None:
            return random.choice(choices[name])
        draw_number = random.randint if space.get("distribution") == "int_uniform" else random.uniform
        return draw_number(space["min"], space["max"])

    return {name: draw(name, space) for name, space in parameters.items()}


def hyperband_stops(sweep: dict, runs: list[dict]) -> list[str]:
    """Return the running runs that W&B's rule stops; docs.wandb.ai describes it under ``early_terminate``."""
    rule, metric = sweep["config"].get("early_terminate"), sweep["config"].get("metric", {})
    if not rule:
        return []
    eta = rule.get("eta", 3)
    if "max_iter" in rule:
        bands = sorted(int(rule["max_iter"] / eta**i) for i in range(1, rule["s"] + 1) if rule["max_iter"] >= eta**i)
    else:
        bands = [int(rule["min_iter"] * eta**i) for i in range(20)]
    sign = -1 if metric.get("goal") == "maximize" else 1
    losses = {
        run["name"]: [sign * row[metric["name"]] for row in run["history"] if metric["name"] in row] for run in runs
    }
    stops = []
    for run in runs:
        own = losses[run["name"]]
        band = max((band for band in bands if band <= len(own)), default=None)
        if band is None or run["state"] != "running":
            continue
        rivals = sorted(history[band - 1] for history in losses.values() if len(history) >= band)
        current = own[band - 1] if rule.get("strict", True) else min(own)
        if current > rivals[int(len(rivals) / eta)]:
            stops.append(run["name"])
    return stops


class FakeWandb:
    """The server. ``errors`` and ``unknown`` must be empty at the end of a test.

    Args:
        suggest: chooses the next run of a sweep.
        stopper: names the runs of a sweep that are to stop.
        stop_via: who stops them: the ``agent`` (SIGTERM) or the ``filestream`` reply (KeyboardInterrupt).

    """

    def __init__(
        self, suggest: Callable = suggest_parameters, stopper: Callable = hyperband_stops, stop_via: str = "agent"
    ):
        self.suggest, self.stopper, self.stop_via = suggest, stopper, stop_via
        self.lock = threading.RLock()
        self.sweeps, self.runs, self.agents, self.artifacts = {}, {}, {}, {}
        self.files: dict[str, bytes] = {}
        self.reports: list[dict] = []
        self.unknown: list[str] = []
        self.errors: list[str] = []
        self.httpd = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.httpd.daemon_threads = True
        self.httpd.handle_error = lambda *_: None  # clients drop their open connections when they exit
        self.url = f"http://127.0.0.1:{self.httpd.server_port}"

    def __enter__(self):
        threading.Thread(target=self.httpd.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(self, *_):
        self.httpd.shutdown()
        self.httpd.server_close()

    def env(self, home: Path) -> dict[str, str]:
        """Return this process's environment, changed so that wandb knows only this server and ``home``."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
        return {
            **kept,
            "HOME": str(home),
            "NO_PROXY": "127.0.0.1",
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": API_KEY,
            "WANDB_ENTITY": ENTITY,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1",
        }

    def receive_stream(self, name: str, request: dict) -> dict:
        """Take in a piece of a run's history and summary; the answer may tell the run to stop."""
        run = self.runs.setdefault(name, _new_run(name))
        run["streamed"] = True
        for file_name, chunk in (request.get("files") or {}).items():
            if file_name == "wandb-history.jsonl":
                rows = [json.loads(line) for line in chunk["content"]]
                run["history"][chunk["offset"] : chunk["offset"] + len(rows)] = rows
            elif file_name == "wandb-summary.json":
                run["summary"].update(json.loads(chunk["content"][0]))
            elif file_name == "output.log":
                run["output"] += chunk["content"]
        if request.get("complete"):
            run["exitcode"] = request.get("exitcode")
            failed = "killed" if run["stopped"] else "failed"
            run["state"] = "finished" if run["exitcode"] == 0 else failed
        return {"exitcode": run["exitcode"], "limits": {}, "stopped": run["stopped"] and self.stop_via == "filestream"}

    def graphql(self, query: str, variables: dict) -> dict:
        """Answer the query ``ServerInfo`` by the method ``answer_server_info``, and so on."""
        named = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
        operation = named[1] if named else "?"
        snake_case = re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", operation).lower()
        answer = getattr(self, f"answer_{snake_case}", None)
        if answer is None:
            self.unknown.append(operation)
            return {"data": None, "errors": [{"message": f"the fake server does not know {operation}"}]}
        return {"data": answer({**variables, **variables.get("input", {})})}

    # The server and its user

    def answer_viewer(self, v):
        return {
            "viewer": {
                "id": _id_of("User", ENTITY),
                "entity": ENTITY,
                "username": ENTITY,
                "name": ENTITY,
                "email": None,
                "admin": False,
                "flags": "{}",
                "teams": {"edges": []},
                "apiKeys": {"edges": []},
            }
        }

    answer_get_viewer = answer_get_default_entity = answer_viewer

    def answer_server_info(self, v):
        return {"serverInfo": {"cliVersionInfo": {"max_cli_version": "99.0.0"}, "latestLocalVersionInfo": None}}

    def answer_server_features_query(self, v):
        return {"serverInfo": {"features": []}}

    def answer_organization_core_weave_organizationid(self, v):
        return {"entity": {"organization": None}}

    # Reports

    def answer_get_projects(self, v):
        return {
            "models": {"edges": [], "pageInfo": {"__typename": "PageInfo", "hasNextPage": False, "endCursor": None}}
        }

    def answer_create_project(self, v):
        return {"result": {"project": {"__typename": "Project", **_project(v["name"])}, "inserted": True}}

    def answer_upsert_view(self, v):
        self.reports.append(v)
        view = {name: v[name] for name in ("type", "name", "displayName", "description", "spec")}
        view |= {
            "id": _id_of("View", v["name"]),
            "project": _project(v["projectName"]),
            "updatedAt": "2026-01-01T00:00",
        }
        return {"upsertView": {"view": view, "inserted": True}}

    # Runs

    def answer_run_resume_status(self, v):
        run = self.runs.get(v["name"])
        bucket = run and {
            "id": run["id"],
            "name": run["name"],
            "displayName": run["displayName"],
            "notes": None,
            "tags": [],
            "summaryMetrics": json.dumps(run["summary"]),
            "config": json.dumps(run["config"]),
            "wandbConfig": json.dumps({"t": 1}) if run["streamed"] else "{}",
            "logLineCount": len(run["output"]),
            "historyLineCount": len(run["history"]),
            "eventsLineCount": 0,
            "historyTail": json.dumps([json.dumps(row) for row in run["history"][-1:]]),
            "eventsTail": "[]",
        }
        return {
            "model": {
                "id": PROJECT_ID,
                "name": v["project"],
                "bucket": bucket,
                "entity": {"id": "entity-id", "name": ENTITY},
            }
        }

    def answer_upsert_bucket(self, v):
        by_id = (run["name"] for run in self.runs.values() if run["id"] == v.get("id"))
        name = v.get("name") or next(by_id, None) or _new_name()
        is_new = name not in self.runs
        run = self.runs.setdefault(name, _new_run(name))
        for field in ("project", "entity", "displayName", "sweep", "groupName", "jobType", "program", "host"):
            if v.get(field):
                run[field] = v[field]
        run["config"].update(json.loads(v.get("config") or "{}"))
        run["summary"].update(json.loads(v.get("summaryMetrics") or "{}"))
        run["displayName"] = run["displayName"] or f"run-{len(self.runs)}"
        return {
            "upsertBucket": {
                "inserted": is_new,
                "bucket": {
                    "id": run["id"],
                    "name": name,
                    "displayName": run["displayName"],
                    "description": None,
                    "config": json.dumps(run["config"]),
                    "sweepName": run["sweep"],
                    "historyLineCount": len(run["history"]),
                    "project": _project(run["project"]),
                },
            }
        }

    def answer_create_run_files(self, v):
        files = [{"name": name, "uploadUrl": self._storage(f"{v['run']}/{name}")} for name in v["files"]]
        return {"createRunFiles": {"runID": _id_of("Run", v["run"]), "uploadHeaders": [], "files": files}}

    def answer_mark_run_files_uploaded(self, v):
        return {"markRunFilesUploaded": {"success": True}}

    # Artifacts

    def answer_create_artifact(self, v):
        artifact_id = _id_of("Artifact", _new_name())
        self.artifacts[artifact_id] = {
            "name": v["artifactCollectionName"],
            "type": v["artifactTypeName"],
            "run": v.get("runName"),
            "aliases": [alias["alias"] for alias in v.get("aliases") or []],
            "digest": v["digest"],
            "state": "PENDING",
        }
        return {
            "createArtifact": {
                "artifact": {"id": artifact_id, "state": "PENDING", "artifactSequence": {"latestArtifact": None}}
            }
        }

    def answer_artifact_type(self, v):
        name = v["name"].split(":")[0]
        found = next((a for a in self.artifacts.values() if a["name"] == name), None)
        return {"project": {"artifact": found and {"artifactType": {"name": found["type"]}}}}

    def answer_create_artifact_manifest(self, v):
        return {"createArtifactManifest": {"artifactManifest": self._manifest()}}

    def answer_update_artifact_manifest(self, v):
        return {"updateArtifactManifest": {"artifactManifest": self._manifest()}}

    def answer_create_artifact_files(self, v):
        edges = []
        for file in v["artifactFiles"]:
            path = f"artifacts/{file['artifactID']}/{file['name']}"
            edges.append(
                {
                    "node": {
                        "storagePath": path,
                        "uploadUrl": self._storage(path),
                        "uploadHeaders": [],
                        "uploadMultipartUrls": None,
                        "artifact": {"id": file["artifactID"]},
                    }
                }
            )
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def answer_commit_artifact(self, v):
        artifact = self.artifacts[v["artifactID"]]
        artifact["state"] = "COMMITTED"
        return {"commitArtifact": {"artifact": {"id": v["artifactID"], "digest": artifact["digest"]}}}

    # Sweeps

    def answer_upsert_sweep(self, v):
        sweep = next((sweep for sweep in self.sweeps.values() if sweep["id"] == v.get("id")), None)
        if sweep is None:
            name = _new_name()
            sweep = self.sweeps[name] = {
                "name": name,
                "id": _id_of("Sweep", name),
                "state": "PENDING",
                "project": v.get("projectName") or "uncategorized",
            }
        if v.get("config"):
            sweep["config_yaml"], sweep["config"] = v["config"], yaml.safe_load(v["config"])
        sweep["state"] = v.get("state") or sweep["state"]
        return {
            "upsertSweep": {
                "configValidationWarnings": [],
                "sweep": {"name": sweep["name"], "project": _project(sweep["project"])},
            }
        }

    def answer_sweep_with_runs(self, v):
        sweep = self.sweeps.get(v["sweep"])
        if sweep is None:
            return {"project": {"sweep": None}}
        nodes = [
            {
                "name": run["name"],
                "state": run["state"],
                "config": json.dumps(run["config"]),
                "exitcode": run["exitcode"],
                "heartbeatAt": None,
                "shouldStop": run["stopped"],
                "failed": run["state"] == "failed",
                "stopped": run["stopped"],
                "running": run["state"] == "running",
                "summaryMetrics": json.dumps(run["summary"]),
                "sampledHistory": [run["history"]],
            }
            for run in self._runs_of(sweep)
        ]
        return {
            "project": {
                "sweep": {
                    "id": sweep["id"],
                    "name": sweep["name"],
                    "method": sweep["config"].get("method"),
                    "state": sweep["state"],
                    "description": None,
                    "config": sweep["config_yaml"],
                    "createdAt": None,
                    "heartbeatAt": None,
                    "updatedAt": None,
                    "earlyStopJobRunning": False,
                    "bestLoss": None,
                    "controller": None,
                    "scheduler": None,
                    "runs": {"edges": [{"node": node} for node in nodes]},
                }
            }
        }

    def answer_get_sweep_state(self, v):
        return {"project": {"sweep": {"state": self.sweeps[v["sweep"]]["state"]}}}

    def answer_create_agent(self, v):
        agent_id = _id_of("Agent", _new_name())
        self.agents[agent_id] = {"sweep": v["sweep"], "issued": []}
        return {"createAgent": {"agent": {"id": agent_id}}}

    def answer_heartbeat(self, v):
        agent = self.agents[v["id"]]
        sweep = self.sweeps[agent["sweep"]]
        alive = [name for name, is_alive in json.loads(v.get("runState") or "{}").items() if is_alive]
        for run in (self.runs[name] for name in agent["issued"] if name not in alive):
            if run["state"] == "running":  # its process is gone, but it never said that it ended
                run["state"] = "killed" if run["stopped"] else "crashed"
        for name in self.stopper(sweep, self._runs_of(sweep)):
            self.runs[name]["stopped"] = True
        commands = []
        if self.stop_via == "agent":
            commands += [{"type": "stop", "run_id": name} for name in alive if self.runs[name]["stopped"]]
        if sweep["state"] == "CANCELED":
            commands = [{"type": "exit"}]
        elif not alive and sweep["state"] != "PAUSED":
            commands.append(self._next_run(sweep, agent))
        return {"agentHeartbeat": {"agent": {"id": v["id"]}, "commands": json.dumps(commands)}}

    def _next_run(self, sweep: dict, agent: dict) -> dict:
        """Return the command that starts a sweep's next run, or ends the agent when there is none."""
        runs, run_cap = self._runs_of(sweep), sweep["config"].get("run_cap")
        is_done = sweep["state"] == "FINISHED" or (run_cap and len(runs) >= run_cap)
        parameters = None if is_done else self.suggest(sweep, runs)
        if parameters is None:
            sweep["state"] = "FINISHED"
            return {"type": "exit"}
        name = _new_name()
        arguments = {key: {"value": value} for key, value in parameters.items()}
        self.runs[name] = {
            **_new_run(name),
            "sweep": sweep["name"],
            "project": sweep["project"],
            "config": dict(arguments),
        }
        agent["issued"].append(name)
        sweep["state"] = "RUNNING"
        return {"type": "run", "run_id": name, "program": sweep["config"].get("program"), "args": arguments}

    def _runs_of(self, sweep: dict) -> list[dict]:
        return [run for run in self.runs.values() if run["sweep"] == sweep["name"]]

    def _manifest(self) -> dict:
        path = f"manifests/{_new_name()}/wandb_manifest.json"
        return {"id": path, "file": {"id": path, "uploadUrl": self._storage(path), "uploadHeaders": []}}

    def _storage(self, path: str) -> str:
        return f"{self.url}/storage/{path}"


def _new_name() -> str:
    return "".join(random.choices(string.ascii_lowercase + string.digits, k=8))


def _id_of(kind: str, name: str) -> str:
    return base64.b64encode(f"{kind}:{name}".encode()).decode()


def _project(name: str) -> dict:
    return {"id": PROJECT_ID, "name": name, "entity": {"id": "entity-id", "name": ENTITY}}


def _new_run(name: str) -> dict:
    return {
        "name": name,
        "id": _id_of("Run", name),
        "project": "uncategorized",
        "displayName": None,
        "sweep": None,
        "state": "running",
        "stopped": False,
        "exitcode": None,
        "config": {},
        "history": [],
        "summary": {},
        "output": [],
        "streamed": False,
    }


def _handler_of(server: FakeWandb) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def read_body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

        def send(self, content: bytes, code: int = 200) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def stored_path(self) -> str:
            return unquote(urlparse(self.path).path).removeprefix("/storage/")

        def do_GET(self):
            content = server.files.get(self.stored_path())
            self.send(content or b"", 404 if content is None else 200)

        def do_PUT(self):
            server.files[self.stored_path()] = self.read_body()
            self.send(b"{}")

        def do_POST(self):
            path = urlparse(self.path).path
            stream = re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path)
            request, code = json.loads(self.read_body()), 200
            try:
                with server.lock:
                    if path == "/graphql":
                        answer = server.graphql(request["query"], request.get("variables") or {})
                    elif stream:
                        answer = server.receive_stream(unquote(stream[1]), request)
                    else:
                        server.unknown.append(f"POST {path}")
                        answer, code = {}, 404
            except Exception:  # a mistake in here must fail the test, not make the client retry for ever
                server.errors.append(traceback.format_exc())
                answer, code = {"errors": [{"message": server.errors[-1]}]}, 400
            self.send(json.dumps(answer).encode(), code)

    return Handler
