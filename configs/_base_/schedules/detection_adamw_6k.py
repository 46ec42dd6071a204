# AdamW, 300 iterations of warm-up, then poly 0.9 to the 6,000th; gradients are cut off at a norm of 10.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=5e-4, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=300),
    dict(type="PolyLR", power=0.9, eta_min=1e-6, by_epoch=False, begin=300, end=6000),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=6000, val_interval=500)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
