"""The XML of one image."""

from __future__ import annotations

import pytest

from data_pipelines.annotation import AnnotatedObject, Annotation, annotation_xml, read_annotation

OBJECT = """<object><name>{name}</name><bndbox><xmin>{xmin}</xmin><ymin>2</ymin><xmax>30</xmax>
<ymax>40</ymax></bndbox></object>"""
SIZE = "<size><width>50</width><height>60</height></size>"


def test_what_is_written_is_read(tmp_path):
    annotation = Annotation(
        500,
        375,
        (
            AnnotatedObject("dog", (1, 2, 30, 40), difficult=True),
            AnnotatedObject("cat", (5, 6, 7, 8), truncated=True),
        ),
    )
    path = tmp_path / "000001.xml"
    path.write_text(annotation_xml("000001.jpg", annotation))
    assert read_annotation(path) == annotation


def test_parts_of_an_object_and_absent_flags_do_not_matter(tmp_path):
    path = tmp_path / "person.xml"
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part></object>"
    body = OBJECT.format(name="person", xmin="1.6").replace("</object>", part)
    path.write_text(f"<annotation>{SIZE}{body}</annotation>")
    assert read_annotation(path).objects == (AnnotatedObject("person", (1, 2, 30, 40)),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"<annotation>{SIZE}<object>", "broken XML"),
        ("<annotation></annotation>", "<size/width> is None, not a number"),
        (f"<annotation>{SIZE}{OBJECT.format(name='', xmin=1)}</annotation>", "lacks <name>"),
        (
            f"<annotation>{SIZE}{OBJECT.format(name='dog', xmin='left')}</annotation>",
            "<bndbox/xmin> is 'left', not a number",
        ),
        (
            f"<annotation>{SIZE}{OBJECT.format(name='dog', xmin='inf')}</annotation>",
            "<bndbox/xmin> is 'inf', not a number",
        ),
        (f"<annotation>{SIZE.replace('50', '0')}</annotation>", "image size 0 x 60"),
    ],
)
def test_a_broken_file_is_named_with_its_reason(tmp_path, text, reason):
    path = tmp_path / "broken.xml"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason) as error:
        read_annotation(path)
    assert str(error.value).endswith(str(path))


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"annotation missing: .*absent\.xml"):
        read_annotation(tmp_path / "absent.xml")
