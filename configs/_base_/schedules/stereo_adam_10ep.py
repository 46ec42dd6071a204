# PSMNet's schedule for Scene Flow: Adam, a constant rate, 10 epochs of 35,454 pairs at 12 pairs an iteration.
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="Adam", lr=1e-3, betas=(0.9, 0.999)))
param_scheduler = [dict(type="ConstantLR", factor=1.0, by_epoch=False, begin=0, end=29545)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=29545, val_interval=5909)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
