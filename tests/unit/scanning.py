"""A scanner for tests: the double, with a plan of what it says, and the settings that name it."""

from __future__ import annotations

import datetime
import hashlib
import json
from pathlib import Path
from typing import Any

from casemate import ROOT
from casemate.supply.scan_gate import Settings
from casemate.supply.scan_policy import Policy
from casemate.supply.scanner import Scanner

DOUBLE = ROOT / "tests/double/scanner/scanner.py"
NOW = datetime.datetime(2026, 11, 29, 12, 0, tzinfo=datetime.UTC)
DIGEST = f"sha256:{'a' * 64}"
CVE = ["CVE-2026-1", "openssl", "3.0.1", "3.0.2", "HIGH"]


def settings(folder: Path, kind: str = "trivy", built: datetime.datetime = NOW, **plan: Any) -> Settings:
    """What an inventory would say of a scanner of that kind, whose database was built then, and which says this."""
    database, results = folder / "database", folder / "results"
    (database / "db").mkdir(parents=True, exist_ok=True)
    results.mkdir(exist_ok=True)
    said = built.isoformat(timespec="seconds").replace("+00:00", ".123456789Z")
    (database / "db/metadata.json").write_text(json.dumps({"Version": 2, "UpdatedAt": said}))
    (database / "plan.json").write_text(json.dumps({"built": built.isoformat(), **plan}))
    program = folder / "scanner"
    program.write_bytes(DOUBLE.read_bytes())
    program.chmod(0o755)
    digest = hashlib.sha256(program.read_bytes()).hexdigest()
    return Settings(Scanner(kind, program, digest, database, timeout=20), results, Policy(), ("linux/amd64",))


def asked(one: Settings) -> dict[str, Any]:
    """What the double was run with last."""
    made: dict[str, Any] = json.loads((one.scanner.database / "asked.json").read_text())
    return made


def inventory(one: Settings) -> dict[str, Any]:
    """The same as `casemate_image_scans`."""
    tool = one.scanner
    named = {"kind": tool.kind, "path": str(tool.path), "sha256": tool.sha256, "database": str(tool.database)}
    return {"scanner": named, "results": str(one.results), "platforms": list(one.platforms)}
