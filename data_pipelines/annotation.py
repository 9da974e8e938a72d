"""An annotation: the XML file that VOC and ImageNet publish for one image."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

from data_pipelines.location import reason

SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class AnnotatedObject:
    """One ``<object>``."""

    class_name: str
    corners: tuple[int, int, int, int]
    """xmin, ymin, xmax, ymax in pixels, 1-based and inclusive as published."""
    difficult: bool = False
    truncated: bool = False


@dataclass(frozen=True)
class Annotation:
    """Size of the image in pixels and its objects, in published order."""

    width: int
    height: int
    objects: tuple[AnnotatedObject, ...]


def read_annotation(path: Path) -> Annotation:
    """Parse one file.

    Raises:
        ValueError: the file is absent, broken or lacks an element; one line that ends in its path.
    """
    try:
        tree = ElementTree.fromstring(path.read_bytes())
        objects = tuple(read_object(node) for node in tree.iterfind("object"))
        annotation = Annotation(number(tree, "size/width"), number(tree, "size/height"), objects)
    except FileNotFoundError:
        raise ValueError(f"annotation missing: {path}") from None
    except OSError as error:
        raise ValueError(reason(error, path)) from None
    except ElementTree.ParseError as error:
        raise ValueError(f"broken XML ({error}): {path}") from None
    except ValueError as error:
        raise ValueError(f"{error}: {path}") from None
    if annotation.width < 1 or annotation.height < 1:
        raise ValueError(f"image size {annotation.width} x {annotation.height}: {path}")
    return annotation


def read_object(node: ElementTree.Element) -> AnnotatedObject:
    """One object; flags that are absent are off (ImageNet's files omit some)."""
    class_name = node.findtext("name", "").strip()
    if not class_name:
        raise ValueError("an object lacks <name>")
    xmin, ymin, xmax, ymax = (number(node, f"bndbox/{side}") for side in SIDES)
    return AnnotatedObject(
        class_name,
        (xmin, ymin, xmax, ymax),
        difficult=node.findtext("difficult", "").strip() == "1",
        truncated=node.findtext("truncated", "").strip() == "1",
    )


def number(node: ElementTree.Element, path: str) -> int:
    """The integer at that path; fractions (a few published files have them) are truncated."""
    text = node.findtext(path)
    try:
        return int(float(text or ""))
    except (ValueError, OverflowError):
        raise ValueError(f"<{path}> is {text!r}, not a number") from None


def annotation_xml(filename: str, annotation: Annotation, *, segmented: bool = False) -> str:
    """The file's text as published."""
    size = f"<width>{annotation.width}</width><height>{annotation.height}</height>"
    lines = [
        "<annotation>",
        f"\t<filename>{filename}</filename>",
        f"\t<size>{size}<depth>3</depth></size>",
        f"\t<segmented>{segmented:d}</segmented>",
        *map(object_xml, annotation.objects),
        "</annotation>",
    ]
    return "\n".join(lines) + "\n"


def object_xml(annotated: AnnotatedObject) -> str:
    """One ``<object>`` element on one line."""
    sides = zip(SIDES, annotated.corners, strict=True)
    box = "".join(f"<{side}>{value}</{side}>" for side, value in sides)
    flags = (
        f"<truncated>{annotated.truncated:d}</truncated>"
        f"<difficult>{annotated.difficult:d}</difficult>"
    )
    return f"\t<object><name>{annotated.class_name}</name>{flags}<bndbox>{box}</bndbox></object>"
