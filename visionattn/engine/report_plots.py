"""A run's last evaluation as plots for papers and documents."""

from __future__ import annotations

from pathlib import Path

from visionattn.engine.report_detection import KINDS, OVERLAPS, classes_with_objects, confused_names
from visionattn.engine.run_record import read_run


def write_plots(work_dir: str | Path, out: str | Path) -> list[Path]:
    """Writes what the last evaluation has, as PNG files, and returns their paths.

        confusion.png                                          of pixels by class
        confusion_boxes.png                                    of objects by class, with what was missed and made up
        precision_recall_bbox.png, precision_recall_segm.png   mean of the classes at overlaps of 0.5, 0.75 and 0.9

    Raises:
        FileNotFoundError: no run has written in the work dir.
        ValueError: its evaluation has nothing to plot.
    """
    from visionattn.visualization.plots import confusion_plot, precision_recall_plot

    record, out = read_run(work_dir), Path(out)
    written = []
    if record.confusion is not None:
        names = [str(one["name"]) for one in record.classes.get("classes") or []]
        written.append(out / "confusion.png")
        confusion_plot(written[-1], record.confusion, names or list(map(str, range(len(record.confusion)))))
    for kind, precision in record.precision.items():
        there = classes_with_objects(precision)
        if there:
            curves = {f"overlap {name}": precision[index][:, there].mean(1) for index, name in OVERLAPS.items()}
            written.append(out / f"precision_recall_{kind}.png")
            precision_recall_plot(written[-1], curves, f"{KINDS[kind].capitalize()}, mean of {len(there):,} classes")
    names = confused_names(record)
    if record.object_confusion is not None and len(names) == len(record.object_confusion):
        written.append(out / "confusion_boxes.png")
        confusion_plot(written[-1], record.object_confusion, names)
    if not written:
        raise ValueError(f"{work_dir}/evaluation has no confusion_matrix.npy and no precision_bbox.npy to plot")
    return written
