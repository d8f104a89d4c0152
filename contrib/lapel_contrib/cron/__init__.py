"""Events on a schedule."""

from __future__ import annotations

from lapel.descriptor import Capability, Descriptor, Kind

__all__ = ["BINDING"]

BINDING = Descriptor(
    kind=Kind.BINDINGS,
    name="cron",
    driver="lapel_contrib.cron.binding:CronBinding",
    settings="lapel_contrib.cron.settings:CronSettings",
    summary="Events at fixed intervals or by a cron expression.",
    capabilities=Capability.INPUT | Capability.PAUSE,
    extra="cron",
)
