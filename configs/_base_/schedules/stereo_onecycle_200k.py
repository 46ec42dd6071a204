# RAFT-Stereo's schedule for Scene Flow: AdamW, one cycle (1 % up, then down in a line), gradients clipped at a norm
# of 1; 8 pairs an iteration.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4, weight_decay=1e-5, eps=1e-8),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="OneCycleLR", eta_max=2e-4, total_steps=200000, pct_start=0.01, anneal_strategy="linear", by_epoch=False)
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=200000, val_interval=10000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
