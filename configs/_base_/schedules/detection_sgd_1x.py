# The 1x schedule: 90,000 iterations of 16 images (12 epochs of COCO), SGD, tenfold less after 60,000 and 80,000.
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", milestones=[60000, 80000], gamma=0.1, by_epoch=False, begin=0, end=90000),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=90000, val_interval=7500)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
