"""Whether a site may deliver a grade, and to whom.

Admission decides the price level of the contract: conversion factors explain little of the price
differences between sites, so shorts deliver from the cheapest site admitted. All faults are
reported, not only the first.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from contracts.grades import Grade, Jurisdiction
from contracts.hardware import gpu_class
from contracts.refusals import Refusal, Refused

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:/-]{1,64}\Z")]
Count = Annotated[int, Meta(ge=0, le=10_000_000)]


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One facility of one provider and the hardware it offers."""

    provider: Name
    facility: Name
    gpu_class: Name
    form_factor: Name
    fabric: Name
    fabric_gbps: Count  # per GPU
    gpus: Count  # on one fabric
    tenancy: Name
    region: Name
    availability_e4: Annotated[int, Meta(ge=0, le=10_000)]  # promised service level, at 1e-4


class Consignee(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The recipient of a delivery; ``tpp_received`` is total processing performance."""

    country: str
    parent_country: str
    end_use: str = ""
    tpp_received: Annotated[int, Meta(ge=0)] = 0  # in the year so far


def faults(site: Site, grade: Grade) -> list[Refused]:
    """Return every reason why the site may not deliver the grade; empty if it may."""
    here = f"{site.provider}/{site.facility}"
    found = []

    def need(holds: bool, reason: Refusal, what: str, limit: object, seen: object) -> None:
        if not holds:
            found.append(Refused(reason, what, where=here, limit=limit, seen=seen))

    need(site.gpu_class == grade.gpu_class, Refusal.UNKNOWN_GPU, "another class of GPU",
         grade.gpu_class, site.gpu_class)  # fmt: skip
    need(site.form_factor == grade.form_factor, Refusal.FORM_FACTOR, "another form factor",
         grade.form_factor, site.form_factor)  # fmt: skip
    need(site.fabric in grade.fabrics, Refusal.FABRIC, "not a fabric of the grade",
         "/".join(grade.fabrics), site.fabric)  # fmt: skip
    need(site.fabric_gbps >= grade.fabric_gbps, Refusal.FABRIC, "too slow, in Gb/s per GPU",
         grade.fabric_gbps, site.fabric_gbps)  # fmt: skip
    need(site.gpus >= grade.gpus_least, Refusal.CLUSTER_SIZE, "too few GPUs on one fabric",
         grade.gpus_least, site.gpus)  # fmt: skip
    need(site.tenancy == grade.tenancy, Refusal.TENANCY, "shared with others",
         grade.tenancy, site.tenancy)  # fmt: skip
    need("any" in grade.regions or site.region in grade.regions, Refusal.REGION, "another region",
         "/".join(grade.regions), site.region)  # fmt: skip
    need(site.availability_e4 >= grade.availability_e4, Refusal.SERVICE_LEVEL, "promises less",
         grade.availability_e4, site.availability_e4)  # fmt: skip
    return found


def may_receive(
    consignee: Consignee, gpu: str, gpus: int, jurisdiction: Jurisdiction
) -> list[Refused]:
    """Return every rule of the jurisdiction that a delivery of ``gpus`` GPUs would break.

    Empty while the jurisdiction is disabled. Raises Refused UNKNOWN_GPU for an unknown class
    ``gpu``.
    """
    if not jurisdiction.enabled:
        return []
    found = []
    for country in dict.fromkeys((consignee.country, consignee.parent_country)):
        if country in jurisdiction.denied_countries:
            found.append(Refused(Refusal.JURISDICTION, "country is denied", seen=country))
    if consignee.end_use in jurisdiction.denied_end_uses:
        found.append(Refused(Refusal.JURISDICTION, "end use is denied", seen=consignee.end_use))
    after = consignee.tpp_received + gpu_class(gpu).tpp * gpus
    most = jurisdiction.tpp_per_consignee
    if most and after > most:
        found.append(Refused(Refusal.JURISDICTION, "TPP of the year", limit=most, seen=after))
    return found
