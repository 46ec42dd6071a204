"""Pathfinder-style segmentation: curves, two of whose ends carry a dot; which pixels are on the one that joins them?

visionattn train longrange/pathfinder

About 65 seconds of one CPU core. Another mechanism (docs/longrange.md compares all of them):
visionattn train longrange/pathfinder --cfg-options "model.backbone.attention.1.attention={'type': 'NonLocal'}"
"""

_base_ = [
    "../_base_/models/longrange.py",
    "../_base_/datasets/made_up_pathfinder.py",
    "../_base_/runtime/segmentation.py",
]

iterations = 800
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.01))
param_scheduler = [dict(type="OneCycleLR", eta_max=3e-3, total_steps=iterations, pct_start=0.15, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=iterations, val_interval=iterations)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(interval=iterations, max_keep_ckpts=1, save_best=None))
