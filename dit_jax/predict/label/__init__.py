"""Pictures labeled by a model, in the files of the tools that people label with.

ontology.json (expression → class) and pictures ─▶ command (asks a `Segmenter`; `record` resolves
overlaps and keeps what was answered) ─▶ formats (COCO, YOLO, labelme, VOC; with `outlines`)

In: pictures, an ontology. Out: annotation files. Read `command`, then `formats`.
"""
