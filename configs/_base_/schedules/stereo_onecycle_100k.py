# GMStereo's schedule for Scene Flow: AdamW, one cycle (5 % up, then a cosine), gradients clipped at a norm of 1;
# 64 pairs an iteration.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-3, weight_decay=1e-4),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [dict(type="OneCycleLR", eta_max=1e-3, total_steps=100000, pct_start=0.05, by_epoch=False)]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=100000, val_interval=10000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
