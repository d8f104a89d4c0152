"""`lapel check`: open everything, see whether it answers, close it."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..assembly import Components
from ..component import HealthState
from ..errors import AssemblyError, LapelError
from ..manifest import Manifest
from ..ordering import opening_order
from ..registry import Registry
from .output import counted, print_json, print_problems, print_table, problem_data
from .validate import component_data, examined

__all__ = ["check_components"]

COMPONENT_LOGGER = "lapel.component."


@dataclass(slots=True, kw_only=True)
class _Finding:
    manifest: Manifest
    seconds: float = 0.0
    state: str = "failed"
    reason: str | None = None
    capabilities: list[str] = field(default_factory=list)
    withdrawn: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.state == HealthState.READY.value

    def data(self) -> dict[str, Any]:
        return {
            **component_data(self.manifest),
            "ok": self.ok,
            "state": self.state,
            "reason": self.reason,
            "seconds": round(self.seconds, 4),
            "capabilities": self.capabilities,
            "withdrawn": self.withdrawn,
            "warnings": self.warnings,
        }


def check_components(
    registry: Registry,
    paths: Sequence[Path],
    *,
    app_id: str | None,
    namespace: str | None,
    lenient: bool,
    as_json: bool,
) -> int:
    """Open the components one after the other, print how each of them is, and return the exit code.

    Nothing is opened when the files have errors. Must not be called from a running event loop.
    """
    loaded, problems = examined(registry, paths, app_id=app_id, namespace=namespace, lenient=lenient)
    wrong = any(not problem.warning for problem in problems)
    findings: list[_Finding] = []
    if not wrong:
        components = Components(
            app_id=app_id, namespace=namespace, unknown="warn" if lenient else "error", registry=registry
        )
        with _overheard() as warnings:
            findings = asyncio.run(_open_all(components, loaded.components))
        for finding in findings:
            # Of one that is not well the report says the same in its own words.
            finding.warnings = warnings.get(finding.manifest.name, []) if finding.ok else []
    ok = not wrong and all(finding.ok for finding in findings)
    if as_json:
        components_data = [finding.data() for finding in findings]
        print_json({"ok": ok, "components": components_data, "problems": [problem_data(each) for each in problems]})
        return int(not ok)
    print_problems(problems)
    if wrong:
        print("nothing was opened, because the files have errors")
        return 1
    rows = [
        (finding.manifest.name, finding.manifest.type, finding.state, f"{finding.seconds:.3f} s")
        for finding in findings
    ]
    if rows:
        print_table(["NAME", "TYPE", "STATE", "TIME"], rows)
    for finding in findings:
        if not finding.ok:
            print(f"{finding.manifest.name}: {finding.reason or 'is not ready'}")
        for flag, reason in finding.withdrawn.items():
            print(f"{finding.manifest.name}: does not offer {flag}: {reason}")
        for warning in finding.warnings:
            print(f"{finding.manifest.name}: warning: {warning}")
    bad = sum(not finding.ok for finding in findings)
    print(f"{counted(len(findings), 'component')}: {len(findings) - bad} ready, {bad} not")
    return int(not ok)


async def _open_all(components: Components, manifests: list[Manifest]) -> list[_Finding]:
    waves, _ = opening_order(manifests)
    async with components:
        findings = [await _open(components, manifest) for wave in waves for manifest in wave]
        for finding in findings:
            # Asked for at the end too: one component can bring another down.
            if finding.ok:
                await _ask(components, finding)
    return findings


async def _open(components: Components, manifest: Manifest) -> _Finding:
    finding = _Finding(manifest=manifest)
    start = time.perf_counter()
    store = manifest.secret_store if manifest.secret_refs() else None
    try:
        if store is not None and store not in components:
            finding.reason = f"its secret store {store!r} did not open"
        else:
            await components.add(manifest)
            await _ask(components, finding)
    except AssemblyError as exc:
        finding.reason = "; ".join(map(str, exc.exceptions))
    except LapelError as exc:
        finding.reason = str(exc)
    finding.seconds = time.perf_counter() - start
    return finding


async def _ask(components: Components, finding: _Finding) -> None:
    name = finding.manifest.name
    health = (await components.health())[name]
    finding.state, finding.reason = health.state.value, health.reason
    for component in components:
        if component.name == name:
            finding.withdrawn |= {flag.name or "": reason for flag, reason in component.withdrawn.items()}
            finding.capabilities = _names(component.capabilities)


def _names(capabilities: Any) -> list[str]:
    from ..descriptor import capability_names

    return capability_names(capabilities)


@contextmanager
def _overheard() -> Iterator[dict[str, list[str]]]:
    """Give what components warn of, by name. Meanwhile nothing is logged but errors."""
    warnings: dict[str, list[str]] = {}

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                print(record.getMessage(), file=sys.stderr)
            component = record.name.removeprefix(COMPONENT_LOGGER)
            if component != record.name and record.levelno == logging.WARNING:
                warnings.setdefault(component, []).append(record.getMessage())

    logger = logging.getLogger("lapel")
    propagate, logger.propagate = logger.propagate, False
    ear = Ear()
    logger.addHandler(ear)
    try:
        yield warnings
    finally:
        logger.removeHandler(ear)
        logger.propagate = propagate
