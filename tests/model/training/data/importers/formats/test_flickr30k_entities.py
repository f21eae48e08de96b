"""Flickr30k Entities: marks in sentences, boxes in an XML; a document type is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import UserError
from tests.model.training.data.importers.importing import Imported, import_source

SENTENCES = (
    "[/EN#12/people A man] sits on [/EN#13/other/furniture a chair] in [/EN#0/notvisual it] .\n"
    "[/EN#12/people He] rests by [/EN#15/other it] [/EN#14/scene outside] .\n"
)
THING = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
XML = (
    "<annotation><filename>1000.jpg</filename><size><width>400</width><height>200</height><depth>3</depth></size>"
    + THING.format(12, 41, 21, 140, 80)
    + THING.format("13</name><name>15", 0, 0, 40, 20)
    + THING.format(13, 201, 101, 400, 200)
    + "<object><name>14</name><scene>1</scene><nobndbox>1</nobndbox></object></annotation>"
)


def entities(folder: Path, sentences: dict[str, str], xml: dict[str, str], **options: str) -> Imported:
    source = folder / "entities"
    for name, files, ending in (("Sentences", sentences, "txt"), ("Annotations", xml, "xml")):
        (source / name).mkdir(parents=True)
        for stem, text in files.items():
            (source / name / f"{stem}.{ending}").write_text(text)
    return import_source("flickr30k-entities", source, options=options)


def test_phrases_with_boxes_are_marked_others_are_text(tmp_path: Path) -> None:
    imported = entities(tmp_path, {"1000": SENTENCES}, {"1000": XML})
    one, two = (record.turns[1] for record in imported.records)
    assert one.text == (
        "<ref>A man</ref>[[100,100,350,400]] sits on <ref>a chair</ref>[[0,0,100,100],[500,500,1000,1000]] in it ."
    )
    assert two.text == "<ref>He</ref>[[100,100,350,400]] rests by <ref>it</ref>[[0,0,100,100]] outside ."
    assert [region.box for region in one.regions] == [(40, 20, 140, 80), (0, 0, 40, 20), (200, 100, 400, 200)]
    assert [one.text[slice(*(region.phrase or (0, 0)))] for region in one.regions] == ["A man", "a chair", "a chair"]
    assert imported.records[0].media[0].path == "1000.jpg"


def test_box_of_all_pixels_is_the_whole_picture(tmp_path: Path) -> None:
    xml = XML.replace("400</width><height>200", "500</width><height>375").replace(
        THING.format(12, 41, 21, 140, 80), THING.format(12, 1, 1, 500, 375) + THING.format(12, 500, 375, 500, 375)
    )
    (record,) = entities(tmp_path, {"1000": "[/EN#12/people A man] sits ."}, {"1000": xml}).records
    assert record.turns[1].text == "<ref>A man</ref>[[0,0,1000,1000],[998,997,1000,1000]] sits ."
    assert [region.box for region in record.turns[1].regions] == [(0, 0, 500, 375), (499, 374, 500, 375)]


def test_make_caption_is_the_sentence_alone(tmp_path: Path) -> None:
    imported = entities(tmp_path, {"1000": SENTENCES}, {"1000": XML}, make="caption")
    assert [record.turns[1].text for record in imported.records] == [
        "A man sits on a chair in it .",
        "He rests by it outside .",
    ]


TYPE = '<!DOCTYPE annotation [<!ENTITY a "b"><!ENTITY x SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(
    ("sentences", "xml", "reason"),
    [
        (SENTENCES, TYPE + XML, "an XML with a document type: it is not read"),
        (SENTENCES, XML[:-5], "no XML: "),
        (SENTENCES, None, "no text in `annotations`: None"),
        (SENTENCES, XML.replace("<width>400", "<width>x"), "no size of the picture"),
        (SENTENCES, XML.replace("<xmin>41", "<xmin>4O"), "no box: [None, 21, 140, 80] of object 12"),
        ("[/EN#12/people A man sits .", XML, "a phrase that is not closed"),
        ("[/EN#12/people A man] sits .", XML.replace("<xmax>140", "<xmax>500"), "box [40.0, 20.0, 500.0, 80.0]"),
        ("", XML, "no record in it"),
    ],
)
def test_broken_image_is_rejected_and_the_rest_imported(
    tmp_path: Path, sentences: str, xml: str | None, reason: str
) -> None:
    xmls = {"1000": XML} | ({"2000": xml} if xml else {})
    imported = entities(tmp_path, {"1000": SENTENCES, "2000": sentences}, xmls)
    assert len(imported.records) == 2
    assert {said.startswith(reason) for said in imported.reasons} == {True}
    assert imported.rejected[0]["file"] == "Sentences/2000.txt"


def test_folder_without_sentences_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"give the folder of Sentences and Annotations"):
        import_source("flickr30k-entities", tmp_path)
