"""The golden messages: what the real Celery 5.7 published for each form, captured once.

    CELERY_REFERENCE_PYTHON=… python -m tests.wire.golden

captures them anew into `golden/`. The bytes are kept as they came, but for the sender's process and host. What differs
from call to call (dates counted from now, the sender's ids) is taken out when two messages are compared.
"""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import os
import pickle
import re
import subprocess
import tempfile
from base64 import b64decode
from pathlib import Path
from typing import Any

from tests.running import ROOT
from tests.servers import RedisServer

from celery import codecs

FOLDER = Path(__file__).parent / "golden"
REFERENCE = os.environ.get("CELERY_REFERENCE_PYTHON", "")
SCRIPTS = Path(__file__).parent / "reference"

_ORIGIN = re.compile(r'gen\d+@[^"\\]+')


def load(name: str) -> dict[str, Any]:
    """One golden form: {"lists": {key: envelope}, "sets": {key: members}}."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def reference_environment(folder: Path, **variables: str) -> dict[str, str]:
    """For the real Celery's Python, with the optional codecs of this one: both are one and the same version."""
    for module in ("yaml", "_yaml", "msgpack"):
        spec = importlib.util.find_spec(module)
        link = folder / "codecs" / module
        if spec is not None and spec.origin is not None and not link.exists():
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(Path(spec.origin).parent)
    path = f"{folder / 'codecs'}:{SCRIPTS}"
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "PYTHONPATH": path, "TZ": "UTC", **variables}


def capture(python: str, environment: dict[str, str], url: str) -> dict[str, Any]:
    """Every form as published by the Celery of that Python."""
    command = [python, str(SCRIPTS / "capture.py"), url]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answer = json.loads(done.stdout)
    assert not answer["failed"], answer["failed"]
    captured: dict[str, Any] = answer["captured"]
    return captured


def values(envelope: str) -> dict[str, Any]:
    """An envelope decoded all the way down; what differs from call to call is named instead."""
    document: dict[str, Any] = json.loads(envelope)
    headers, properties = document["headers"], document["properties"]
    body = b64decode(document["body"])
    document["body"] = _decoded(_decompressed(body, headers.get("compression")), document["content-type"])
    if "origin" in headers:
        headers["origin"] = _ORIGIN.sub("<origin>", headers["origin"])
    for place in (headers, document["body"] if isinstance(document["body"], dict) else {}):
        for date in ("eta", "expires"):
            if place.get(date):
                place[date] = _date(place[date])
    if properties["reply_to"] != "HERE":
        properties["reply_to"] = "<thread>" if re.fullmatch("[0-9a-f-]{36}", properties["reply_to"]) else "?"
    properties["delivery_tag"] = bool(properties["delivery_tag"])
    if len(properties.get("expiration", "")) > 9:
        properties["expiration"] = "<until 2099>"
    return document


def plain(body: Any, content_type: str) -> Any:
    """A body as our codecs decoded it, in the terms of `values`."""
    if content_type == "application/json":
        return json.loads(codecs.dumps(body))
    return _listed(body)


def _date(text: str) -> str:
    """Its zone, and the date itself unless it was counted from now."""
    date = dt.datetime.fromisoformat(text)
    left = date - (dt.datetime.now(date.tzinfo) if date.tzinfo else dt.datetime.now(dt.UTC).replace(tzinfo=None))
    return text if left > dt.timedelta(days=30) else f"<date> {date.utcoffset()}"


def _decompressed(body: bytes, method: str | None) -> bytes:
    if method is None:
        return body
    from kombu.compression import decompress

    plain: bytes = decompress(body, method)
    return plain


def _decoded(body: bytes, content_type: str) -> Any:
    if content_type == "application/json":
        return json.loads(body)
    if content_type == "application/x-python-serialize":
        return _listed(pickle.loads(body))
    if content_type == "application/x-yaml":
        import yaml

        return yaml.safe_load(body)
    import msgpack

    return msgpack.unpackb(body)


def _listed(body: Any) -> Any:
    """Pickle tells tuples from lists, and each Celery has its own mind of which the parts of a body are."""
    if isinstance(body, dict):
        return {key: _listed(value) for key, value in body.items()}
    return [_listed(part) for part in body] if isinstance(body, tuple | list) else body


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with RedisServer() as server, tempfile.TemporaryDirectory() as folder:
        captured = capture(REFERENCE, reference_environment(Path(folder)), server.url().removesuffix("/0"))
    for name in names():
        (FOLDER / f"{name}.json").unlink()
    for name, found in captured.items():
        lists = {key: _ORIGIN.sub("gen1@reference", envelope) for key, envelope in found["lists"].items()}
        text = json.dumps({"lists": lists, "sets": found["sets"]}, indent=1, ensure_ascii=True)
        (FOLDER / f"{name}.json").write_text(text + "\n")
    print(f"{len(captured)} forms in {FOLDER.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
