"""A bill of materials as CycloneDX 1.6 has it, in JSON, validated against its official schema.

The same components give the same bytes but for the serial number and the time, which the caller may fix.
Sources: CycloneDX 1.6 (ECMA-424), and for a module's sum as its hash cyclonedx-gomod, which does so.
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace

from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component as Entry
from cyclonedx.model.component import ComponentType, Pedigree
from cyclonedx.model.component_evidence import ComponentEvidence, Occurrence
from cyclonedx.model.license import LicenseExpression
from cyclonedx.model.lifecycle import LifecyclePhase, PredefinedLifecycle
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from casemate import __version__
from casemate.supply.component import Component
from casemate.supply.package_url import purl

TYPES = {
    "go": ComponentType.LIBRARY,
    "pypi": ComponentType.LIBRARY,
    "deb": ComponentType.LIBRARY,
    "image": ComponentType.CONTAINER,
    "file": ComponentType.FILE,
    "kernel": ComponentType.OPERATING_SYSTEM,
    "release": ComponentType.APPLICATION,
}


def document(
    subject: Entry,
    components: Iterable[Component],
    system: Mapping[str, str],
    phase: LifecyclePhase = LifecyclePhase.OPERATIONS,
    serial: uuid.UUID | None = None,
    when: datetime.datetime | None = None,
    distributed: Mapping[tuple[str, str], Iterable[tuple[str, str]]] | None = None,
) -> str:
    """The bill of materials of a subject, which is what is made of the components; ends with a line feed.

    `system` is os-release(5) of the host: ID and VERSION_ID qualify Debian packages.
    `distributed`: (name, version) of a component -> (address, SHA-256 in hex) of each file as which it is distributed.
    Raises ValueError where the document does not fit the schema: then it is not to be written.
    """
    bom = Bom(
        serial_number=serial or uuid.uuid4(),
        metadata=BomMetaData(
            component=subject,
            timestamp=when or datetime.datetime.now(datetime.UTC),
            lifecycles=[PredefinedLifecycle(phase)],
            tools=ToolRepository(
                components=[Entry(name="casemate", type=ComponentType.APPLICATION, version=__version__)]
            ),
        ),
    )
    taken: set[str] = {str(subject.bom_ref)}
    entries = [_entry(one, system, taken) for one in sorted(map(_of_characters, components))]
    for entry in entries:
        files = (distributed or {}).get((entry.name, entry.version or ""), ())
        entry.external_references.update(_file(address, digest) for address, digest in files)
    bom.components.update(entries)
    bom.register_dependency(subject, entries)
    text = JsonV1Dot6(bom).output_as_string(indent=2) + "\n"
    if fault := problem(text):
        raise ValueError(fault)
    return text


def problem(text: str) -> str:
    """What keeps a document from fitting the schema of CycloneDX 1.6; "" where it fits."""
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    return "" if found is None else f"{found.data.json_path}: {str(found.data.message)[-300:]}"


def host(name: str, system: Mapping[str, str], machine: str, unread: Mapping[str, str]) -> Entry:
    """A host as the subject of a document. What could not be read there stands in its properties."""
    told = {"casemate:os": system.get("PRETTY_NAME", ""), "casemate:machine": machine}
    told.update({f"casemate:unread:{place}": why for place, why in unread.items()})
    properties = [Property(name=key, value=_text(value)) for key, value in told.items() if value]
    return Entry(name=name, type=ComponentType.DEVICE, bom_ref=f"host:{name}", properties=properties)


def _entry(one: Component, system: Mapping[str, str], taken: set[str]) -> Entry:
    url = purl(one, system)
    ref = str(url) if url else f"{one.ecosystem}:{one.name}@{one.version}"
    number = 2
    while ref in taken:  # the same module from two sources
        ref, number = f"{ref.partition(' ')[0]} {number}", number + 1
    taken.add(ref)
    told = {"casemate:source": one.source, "casemate:source-version": one.source_version}
    return Entry(
        name=one.name,
        type=TYPES[one.ecosystem],
        bom_ref=ref,
        version=None if one.ecosystem == "file" else one.version,
        purl=url,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=one.sha256)] if one.sha256 else (),
        licenses=[LicenseExpression(one.licence)] if one.licence else (),
        pedigree=Pedigree(ancestors=[Entry(name=one.replaces)]) if one.replaces not in ("", one.name) else None,
        evidence=_places(one.where, ref) if one.where else None,
        properties=[Property(name=name, value=value) for name, value in told.items() if value],
    )


def _file(address: str, digest: str) -> ExternalReference:
    """A file as which a component is distributed."""
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=digest)]
    return ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(address), hashes=hashes)


def _places(where: Iterable[str], ref: str) -> ComponentEvidence:
    """Where a component was found. By their references they have an order, without which no two documents are equal."""
    numbered = enumerate(where, 1)
    return ComponentEvidence(occurrences=[Occurrence(bom_ref=f"{ref}#{n}", location=place) for n, place in numbered])


def _of_characters(one: Component) -> Component:
    """A component as a host named it, in what JSON can have."""
    texts = {field.name: _text(getattr(one, field.name)) for field in fields(one) if field.name != "where"}
    return replace(one, where=tuple(map(_text, one.where)), **texts)


def _text(said: str) -> str:
    """A text of a host without what is no character: half of a pair of surrogates is none."""
    return re.sub("[\ud800-\udfff]", "\ufffd", said)
