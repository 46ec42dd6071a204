# PSMNet's schedule for KITTI, from weights of Scene Flow: Adam, 300 epochs of 180 pairs at 12 pairs an iteration; a
# tenth of the rate after 200 of them.
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-3, betas=(0.9, 0.999)))
param_scheduler = [dict(type="MultiStepLR", gamma=0.1, milestones=[3000], by_epoch=False, begin=0, end=4500)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=4500, val_interval=450)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
