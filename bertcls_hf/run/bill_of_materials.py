"""The bill of materials of a finished run: what its model was made of, as a CycloneDX ML-BOM (ECMA-424)."""

import functools
import importlib.metadata
import sys
import uuid
from typing import TYPE_CHECKING

from bertcls_hf.atomic_files import write_text_atomically
from bertcls_hf.manifests import BILL_FILE, weights_digest


if TYPE_CHECKING:
    from cyclonedx.model.component import Component

    from bertcls_hf.hub.card.finished_run import FinishedRun

# How the names of digests begin, by what they are of.
DIGESTS = {"encoder": ("encoder", "tokenizer"), "train": ("training", "teachers"), "validation": ("validation",)}


def write_bill_of_materials(finished: "FinishedRun") -> None:
    """Writes `bom.cdx.json` into output_dir: the model, its encoder, its data, and the packages that the run loaded.

    The digests of weights are SHA-256. Those of the data and the encoder, which are the manifest's, are properties.
    An evaluation in the folder of a training leaves the training's bill as it is.

    Raises:
        StorageError: the disk is full or cannot be written.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.output import OutputFormat, make_outputter
    from cyclonedx.schema import SchemaVersion

    if not finished.has_trained:
        return
    digest = weights_digest(finished.folder)
    model = _model(finished, digest)
    parts = [_encoder(finished), *_data(finished), *_packages()]
    # Two runs with the same weights have bills of the same model.
    serial_number = uuid.uuid5(uuid.NAMESPACE_OID, str(digest))
    bill = Bom(serial_number=serial_number, metadata=BomMetaData(component=model), components=parts)
    bill.register_dependency(model, parts)
    text = make_outputter(bill, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)
    write_text_atomically(finished.folder / BILL_FILE, text + "\n")


def _model(finished: "FinishedRun", digest: str | None) -> "Component":
    from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
    from cyclonedx.model.component import Component, ComponentType

    results = {name: f"{value}" for name, value in finished.all_results.items() if name.startswith(("eval_", "test_"))}
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=finished.folder.resolve().name,
        bom_ref="model",
        description="A text classifier",
        hashes=[] if digest is None else [HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        external_references=[ExternalReference(type=ExternalReferenceType.MODEL_CARD, url=XsUri("README.md"))],
        properties=[Property(name=f"bertcls_hf:result:{name}", value=value) for name, value in results.items()],
    )


def _encoder(finished: "FinishedRun") -> "Component":
    from cyclonedx.model.component import Component, ComponentType

    from bertcls_hf.hub.card.public_text import without_local_paths

    licence, _ = finished.licences
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=without_local_paths(finished.args.model.model_name_or_path),
        bom_ref="encoder",
        version=finished.args.model.model_revision,
        licenses=_licences(licence),
        properties=_digests(finished, "encoder"),
    )


def _data(finished: "FinishedRun") -> "list[Component]":
    from cyclonedx.model.component import Component, ComponentType

    from bertcls_hf.hub.card.licences import data_name

    _, licence = finished.licences
    return [
        Component(
            type=ComponentType.DATA,
            name=data_name(finished.args.data, split),
            bom_ref=f"{split} data",
            description=f"{split} data",
            licenses=_licences(licence),
            properties=_digests(finished, split),
        )
        for split in finished.data.splits
    ]


def _licences(name: str | None) -> list:
    from cyclonedx.contrib.license.factories import LicenseFactory

    return [] if name is None else [LicenseFactory().make_from_string(name)]


def _digests(finished: "FinishedRun", part: str) -> list:
    from cyclonedx.model import Property

    identity = finished.trainer.identity
    digests = {} if identity is None else identity.digests
    return [
        Property(name=f"bertcls_hf:digest:{name}", value=value)
        for name, value in digests.items()
        if name.startswith(DIGESTS.get(part, ()))
    ]


def _packages() -> "list[Component]":
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    return [
        Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            bom_ref=f"{name}=={version}",
            purl=PackageURL("pypi", name=name.lower().replace("_", "-"), version=version),
        )
        for name, version in _loaded_packages()
    ]


def _loaded_packages() -> list[tuple[str, str]]:
    """Lists the names and versions of the packages that this process has imported."""
    modules = {name.partition(".")[0] for name in list(sys.modules)}
    found = {package for module in modules for package in _packages_of_modules().get(module, [])}
    return [(name, importlib.metadata.version(name)) for name in sorted(found)]


@functools.cache
def _packages_of_modules() -> dict[str, list[str]]:
    return {name: list(packages) for name, packages in importlib.metadata.packages_distributions().items()}
