# COCO 2017, boxes and masks; see coco_detection.py.
_base_ = ["coco_detection.py"]
train_dataloader = dict(dataset=dict(with_masks=True))
val_dataloader = dict(dataset=dict(with_masks=True))  # for the pictures
test_dataloader = val_dataloader
val_evaluator = dict(iou_types=("bbox", "segm"))
test_evaluator = dict(iou_types=("bbox", "segm"))
