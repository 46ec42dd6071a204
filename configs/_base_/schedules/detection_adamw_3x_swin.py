# Swin's 3x schedule: 36 epochs of 7,330 iterations of 16 images, AdamW, tenfold less after 27 and 33.
# No weight decay on norms, on position embeddings and on the tables of relative position.
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(
        custom_keys={
            "absolute_pos_embed": dict(decay_mult=0.0),
            "relative_position_bias_table": dict(decay_mult=0.0),
            "norm": dict(decay_mult=0.0),
        }
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, by_epoch=False, begin=0, end=1000),
    dict(type="MultiStepLR", milestones=[197910, 241890], gamma=0.1, by_epoch=False, begin=0, end=263880),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=263880, val_interval=21990)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
