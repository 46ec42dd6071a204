# GwcNet's schedule for Scene Flow: Adam, 16 epochs of 35,454 pairs at 16 pairs an iteration; the rate is halved after
# 10, 12 and 14 of them.
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-3, betas=(0.9, 0.999)))
param_scheduler = [
    dict(type="MultiStepLR", gamma=0.5, milestones=[22159, 26591, 31022], by_epoch=False, begin=0, end=35454)
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=35454, val_interval=5909)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
