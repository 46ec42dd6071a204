# mmseg's schedule for ResNets: SGD, poly 0.9 to the 160,000th iteration, 16 images an iteration.
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=0.0005))
param_scheduler = [dict(type="PolyLR", power=0.9, eta_min=1e-4, by_epoch=False, begin=0, end=160000)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=160000, val_interval=16000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
