# LVIS v1, boxes and masks of 1,203 classes on COCO's images: annotations/lvis_v1_{train,val}.json beside train2017 and
# val2017. An image with a class that less than one in a thousand shows is repeated, sqrt(0.001 / share) times.
# Another place: --cfg-options data_root=PATH
_base_ = ["coco_instance.py"]
data_root = "data/coco"
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type="ClassBalancedDataset",
        oversample_thr=1e-3,
        dataset=dict(
            type="visionattn.CocoDetection",
            data_root=data_root,
            ann_file="annotations/lvis_v1_train.json",
            keep_empty=False,
            with_masks=True,
            pipeline={{_base_.train_pipeline}},
        ),
    )
)
val_dataloader = dict(dataset=dict(data_root=data_root, ann_file="annotations/lvis_v1_val.json", image_dir=""))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type="visionattn.LvisMetric", iou_types=("bbox", "segm"))
test_evaluator = val_evaluator
