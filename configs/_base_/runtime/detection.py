# Names without a scope are mmengine's: write visionattn. before ours. A detection run imports no mmseg.
default_scope = "mmengine"
runner_type = "visionattn.Runner"
env_cfg = dict(
    cudnn_benchmark=False,  # images of every size
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
randomness = dict(seed=0)
log_level = "INFO"
log_processor = dict(by_epoch=False)
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=50, log_metric_by_epoch=False),
    checkpoint=dict(
        type="CheckpointHook",
        by_epoch=False,
        interval=7500,
        max_keep_ckpts=2,
        save_best="coco/bbox_AP",
        rule="greater",
    ),
)
custom_hooks = [dict(type="visionattn.PredictionPicturesHook", number=8)]
load_from = None
resume = False
