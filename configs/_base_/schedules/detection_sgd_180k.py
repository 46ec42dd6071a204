# LVIS's schedule: 180,000 iterations of 16 images, SGD, tenfold less after 120,000 and 160,000.
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", milestones=[120000, 160000], gamma=0.1, by_epoch=False, begin=0, end=180000),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=180000, val_interval=30000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
